//! Making meshes and members through the broker's HTTP routes. Blocking: call it outside of async code.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_protocol::crypto::keys::SecretKey;
use claudemesh_protocol::crypto::{http, signed};
use claudemesh_protocol::features::enrolment::{Claim, Claimed, CreateInvite, CreateMesh, InviteView, MeshCreated};
use claudemesh_protocol::id::{self, InviteId, MeshId};
use serde::Serialize;
use serde_json::Value;

use crate::clock::now_ms;
use crate::identity::{LastHello, Member};

/// Status and JSON body of an HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, `null` when it was no JSON.
    pub body: Value,
}

/// A mesh whose owner key we hold.
pub struct OwnedMesh {
    /// `http://host:port`
    pub base: String,
    /// Row id.
    pub id: MeshId,
    /// Slug.
    pub slug: String,
    /// Signs invites.
    pub owner: SecretKey,
    /// The creator, role `owner`.
    pub creator: Arc<Member>,
}

impl OwnedMesh {
    /// Waits until the mesh has taken in what its sockets had told it, as the end of one: a request that goes through the same mailbox
    /// and comes last. It is signed with the time of the machine, so the broker's clock may not have moved far.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn settle(&self) -> Result<()> {
        let answer = get(&self.base, &format!("/cli/mesh/{}/permissions", self.slug), Some(&self.creator.key))?;
        ensure!(answer.status == 200, "the mesh does not answer: {answer:?}");
        Ok(())
    }

    /// Creates a mesh on a broker that listens on loopback.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub fn create(base: &str, slug: &str) -> Result<Self> {
        let mut rng = rand::thread_rng();
        let (owner, key) = (SecretKey::random(&mut rng), SecretKey::random(&mut rng));
        let request = CreateMesh {
            slug: slug.into(),
            name: None,
            owner_pubkey: owner.public(),
            member_pubkey: key.public(),
            display_name: format!("{slug}-owner"),
        };
        let answer = post(base, "/mesh", &request, Some(&owner))?;
        let created: MeshCreated = answer.read().context("creating a mesh")?;
        let creator = Member {
            mesh: created.mesh_id.clone(),
            id: created.member_id,
            key,
            name: request.display_name.clone(),
            last_hello: LastHello::default(),
        };
        Ok(Self { base: base.into(), id: created.mesh_id, slug: slug.into(), owner, creator: Arc::new(creator) })
    }

    /// Registers a v2 invite; returns what the broker made of it.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub fn invite(&self, role: &str, max_uses: u32) -> Result<InviteView> {
        let mut rng = rand::thread_rng();
        let invite_id = InviteId::random(&mut rng);
        let expires_at = now_ms() / 1000 + 3600;
        let canonical = signed::invite_v2(&self.id, &invite_id, expires_at, role, &self.owner.public());
        let request = CreateInvite {
            invite_id,
            code: id::random_code(&mut rng),
            role: role.into(),
            max_uses,
            expires_at,
            signature_v2: self.owner.sign(canonical.as_bytes()),
            v1_token_hash: None,
            preset: None,
        };
        let path = format!("/mesh/{}/invites", self.id);
        post(&self.base, &path, &request, Some(&self.owner))?.read().context("creating an invite")
    }

    /// Enrols that many members named `<prefix>-<n>` (one name without a number when `count` is 1).
    ///
    /// # Errors
    /// The broker cannot be reached or refuses.
    pub fn members(&self, prefix: &str, count: u32) -> Result<Vec<Arc<Member>>> {
        let invite = self.invite("member", count)?;
        (0..count)
            .map(|index| {
                let name = if count == 1 { prefix.to_owned() } else { format!("{prefix}-{index}") };
                let key = SecretKey::random(&mut rand::thread_rng());
                claim(&self.base, &invite.code, key, &name).map(Arc::new)
            })
            .collect()
    }

    /// Enrols one member of that name.
    ///
    /// # Errors
    /// As [`Self::members`].
    pub fn member(&self, name: &str) -> Result<Arc<Member>> {
        self.members(name, 1)?.pop().context("one member was asked for")
    }
}

/// Claims an invite for a key.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub fn claim(base: &str, code: &str, key: SecretKey, name: &str) -> Result<Member> {
    let claimed: Claimed = claim_answer(base, code, &key, name)?.read().context("claiming an invite")?;
    Ok(Member {
        mesh: claimed.mesh_id,
        id: claimed.member_id,
        key,
        name: name.into(),
        last_hello: LastHello::default(),
    })
}

/// Claims an invite and returns the answer as it is.
///
/// # Errors
/// The broker cannot be reached.
pub fn claim_answer(base: &str, code: &str, key: &SecretKey, name: &str) -> Result<Answer> {
    let recipient = URL_SAFE_NO_PAD.encode(key.to_x25519().public_key().as_bytes());
    let signature = key.sign(signed::claim(code, &key.public(), &recipient).as_bytes());
    let request = Claim {
        recipient_x25519_pubkey: recipient,
        peer_pubkey: key.public(),
        signature,
        display_name: Some(name.into()),
    };
    post(base, &format!("/invites/{code}/claim"), &request, None)
}

/// `POST` with a JSON body, signed when a key is given.
///
/// # Errors
/// No HTTP answer came; a refusal is an [`Answer`].
pub fn post(base: &str, path: &str, body: &impl Serialize, signer: Option<&SecretKey>) -> Result<Answer> {
    request("POST", base, path, &serde_json::to_vec(body)?, signer, &[])
}

/// `GET`, signed when a key is given.
///
/// # Errors
/// As [`post`].
pub fn get(base: &str, path: &str, signer: Option<&SecretKey>) -> Result<Answer> {
    request("GET", base, path, b"", signer, &[])
}

/// Any request with further headers.
///
/// # Errors
/// As [`post`].
pub fn request(
    method: &str,
    base: &str,
    path: &str,
    body: &[u8],
    signer: Option<&SecretKey>,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{base}{path}"));
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if let Some(key) = signer {
        for (name, value) in http::headers(key, method, path, body, now_ms()) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.to_vec())?).with_context(|| format!("{method} {base}{path}"))?;
    let text = response.body_mut().read_to_string().context("reading the answer")?;
    Ok(Answer { status: response.status().as_u16(), body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
}

impl Answer {
    /// The body of a success as a type.
    ///
    /// # Errors
    /// The status is no 2xx, or the body does not fit.
    pub fn read<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        if !(200..300).contains(&self.status) {
            bail!("the broker answered {}: {}", self.status, self.body);
        }
        Ok(serde_json::from_value(self.body)?)
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}
