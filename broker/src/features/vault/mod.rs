//! The vault: secrets of members. A client seals a value before it sends it, for its own member alone; what is here cannot be opened
//! here. Nothing of it lives in memory. Entries of a member who left or was banned stay sealed until someone who manages the vault
//! deletes them.

pub mod limits;
pub mod schema;
pub mod store;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::crypto::keys::KeyError;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::vault::limits as wire;
use claudemesh_protocol::features::vault::{
    DELETED, NOT_FOUND, Request, STORED, VaultAck, VaultDelete, VaultEntry, VaultGet, VaultGetResult, VaultList,
    VaultListResult, VaultSecret, VaultSet, sealing,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::iso;

use self::store::{Found, Label, New, Page, Refused, Removal, Row};
use crate::db::{DbError, MeshDb};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::quota::{Quota, Quotas};
use crate::refusal::{Refusal, invalid};

/// The feature.
pub struct Vault;

impl Feature for Vault {
    const NAME: &'static str = "vault";
    const QUOTAS: &'static [&'static Quota] = limits::ALL;
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::VaultSet(request) => Self::answer::<VaultSet>(set(cx, request)),
            Request::VaultList(request) => Self::answer::<VaultList>(list(cx, &request)),
            Request::VaultDelete(request) => Self::answer::<VaultDelete>(delete(cx, request)),
            Request::VaultGet(request) => Self::answer::<VaultGet>(get(cx, request)),
        }
    }

    async fn describe_stored(
        storage: &MeshDb,
        member: &MemberId,
        quotas: &Quotas,
        info: &mut MeshInfoResult,
    ) -> Result<(), DbError> {
        let (mesh, own) = (store::usage(storage, None).await?, store::usage(storage, Some(member)).await?);
        info.vault_count = u32::try_from(own.entries).unwrap_or(0);
        info.limits.extend([
            quotas.bound(&limits::PER_MESH, mesh.entries.max(0).unsigned_abs()),
            quotas.bound(&limits::PER_MEMBER, own.entries.max(0).unsigned_abs()),
            quotas.bound(&limits::BYTES_PER_MESH, mesh.bytes.max(0).unsigned_abs()),
            quotas.bound(&limits::BYTES_PER_MEMBER, own.bytes.max(0).unsigned_abs()),
        ]);
        Ok(())
    }
}

impl From<Refused> for Refusal {
    fn from(Refused::Limit(bound): Refused) -> Self {
        bound.into()
    }
}

fn is_key(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=wire::MAX_KEY_CHARS).contains(&text.len()) && text.bytes().all(fits)
}

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Answers the bytes of the sealed value.
fn check(request: &VaultSet) -> Result<usize, Refusal> {
    if !is_key(&request.key) {
        let message = "`key`: expected 1 to 128 letters, digits and `_`, `.`, `-`";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    if let Some(path) = &request.mount_path {
        let up = path.split(['/', '\\']).any(|part| part == "..");
        if path.is_empty() || path.len() > wire::MAX_MOUNT_BYTES || up || !is_line(path) {
            return Err(invalid(
                "`mount_path`: expected a path of at most 512 bytes without `..` and control characters",
            ));
        }
    }
    if let Some(text) = &request.description
        && (text.chars().count() > wire::MAX_DESCRIPTION_CHARS || !is_line(text))
    {
        return Err(invalid("`description`: expected at most 500 characters in one line"));
    }
    // Its length alone is looked at first: what is far too long is not decoded.
    if request.ciphertext.len() > wire::MAX_SEALED_BYTES * 2 {
        return Err(ErrorCode::PayloadTooLarge.into());
    }
    sealing::sealed_bytes(&request.ciphertext, &request.nonce, &request.sealed_key).ok_or_else(|| {
        let message = "expected a sealed value: base64 of 16 bytes or more in `ciphertext`, of 24 in `nonce`, of 80 in `sealed_key`";
        Refusal::new(ErrorCode::NotEncrypted, message)
    })
}

/// A client learns at once that its entry could not be verified. Readers check it again.
fn check_signature(cx: &MeshContext<'_>, request: &VaultSet) -> Result<(), Refusal> {
    let (signature, at) = match (&request.signature, request.signed_at_ms) {
        (None, None) => return Ok(()),
        (Some(signature), Some(at)) => (signature, at),
        _ => return Err(invalid("`signature` goes with `signed_at_ms`")),
    };
    match request.verify(cx.mesh_id(), &cx.member()?.pubkey, signature, at) {
        Ok(()) => Ok(()),
        Err(KeyError::BadSignatureShape) => Err(invalid("`signature`: expected 128 hex digits")),
        Err(_) => {
            Err(Refusal::new(ErrorCode::BadSignature, "the signature is not of this entry by the key of its member"))
        }
    }
}

fn set(cx: &mut MeshContext<'_>, request: VaultSet) -> Result<Outcome<VaultAck>, Refusal> {
    let bytes = check(&request)?;
    let quotas = cx.limits().quotas.clone();
    quotas.fits(&limits::BYTES_PER_VALUE, bytes.saturating_sub(16))?;
    let member = cx.member()?.id.clone();
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    check_signature(cx, &request)?;
    let size = bytes + request.description.as_ref().map_or(0, String::len);
    let ack = VaultAck { key: request.key.clone(), action: STORED.into() };
    let row = Row {
        mesh_id: String::new(),
        member_id: member.to_string(),
        name: request.key,
        entry_type: request.entry_type.as_str().into(),
        mount_path: request.mount_path,
        description: request.description,
        ciphertext: request.ciphertext,
        nonce: request.nonce,
        sealed_key: request.sealed_key,
        signature: request.signature.map(|signature| signature.to_ascii_lowercase()),
        signed_at_ms: request.signed_at_ms,
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        updated_at_ms: cx.now_ms(),
    };
    let (storage, new) = (cx.storage(), New { row, quotas });
    let slow = async move { store::set(&storage, new).await };
    Ok(Vault::work_in(cx.own_lane::<Vault>(), slow, |(), _, ()| Ok(Outcome::Answer(ack))))
}

fn delete(cx: &mut MeshContext<'_>, request: VaultDelete) -> Result<Outcome<VaultAck>, Refusal> {
    let member = cx.member()?.id.clone();
    let of = request.member_id.unwrap_or_else(|| member.clone());
    cx.require_own(&of, Capability::CanManageVault)?;
    cx.count_write(&limits::WRITES_PER_MINUTE, Some(&member))?;
    let key = request.key;
    if !is_key(&key) {
        // What no entry can be called is the name of none.
        return Ok(Outcome::Answer(VaultAck { key, action: NOT_FOUND.into() }));
    }
    let removal = Removal { of, name: key.clone(), member, now_ms: cx.now_ms() };
    let storage = cx.storage();
    let slow = async move { store::delete(&storage, removal).await };
    Ok(Vault::work_in(cx.own_lane::<Vault>(), slow, move |(), _, gone| {
        let action = if gone { DELETED } else { NOT_FOUND };
        Ok(Outcome::Answer(VaultAck { key, action: action.into() }))
    }))
}

fn list(cx: &mut MeshContext<'_>, request: &VaultList) -> Result<Outcome<VaultListResult>, Refusal> {
    if request.everyone && !cx.may(Capability::CanManageVault)? {
        return Err(Refusal::lacks(Capability::CanManageVault));
    }
    let place = |cursor: &str| cursor.split_once('.').map(|(member, name)| (member.to_owned(), name.to_owned()));
    let bad_cursor = || invalid("`cursor`: expected `next` of the page before");
    let behind = request.cursor.as_deref().map(|cursor| place(cursor).ok_or_else(bad_cursor)).transpose()?;
    let own = cx.member()?.id.clone();
    let (everyone, storage) = (request.everyone, cx.storage());
    let limit = request.limit.unwrap_or(wire::MAX_PAGE).clamp(1, wire::MAX_PAGE);
    let slow = async move { store::list(&storage, (!everyone).then_some(&own), behind.as_ref(), limit).await };
    Ok(Vault::work_in(cx.own_lane::<Vault>(), slow, move |(), cx, Page { rows, next }| {
        let entries = rows.into_iter().map(|row| label(cx, row, everyone)).collect();
        let next = next.map(|(member, name)| format!("{member}.{name}"));
        Ok(Outcome::Answer(VaultListResult { entries, next }))
    }))
}

fn label(cx: &MeshContext<'_>, row: Label, everyone: bool) -> VaultEntry {
    let of = cx.roster().member(&MemberId::from(row.member_id.as_str()));
    let entry_type = Row { entry_type: row.entry_type, ..Row::default() }.entry_type();
    VaultEntry {
        key: row.name,
        entry_type,
        mount_path: row.mount_path,
        description: row.description,
        updated_at: iso(row.updated_at_ms),
        by: of.filter(|_| everyone).map(|member| member.display_name.clone()),
        member_id: everyone.then_some(row.member_id),
    }
}

fn get(cx: &mut MeshContext<'_>, request: VaultGet) -> Result<Outcome<VaultGetResult>, Refusal> {
    let names = request.keys;
    if names.len() > wire::MAX_KEYS {
        return Err(invalid("`keys`: expected at most 100 names"));
    }
    // What no entry can be called is the name of none.
    let names: Vec<String> = names.into_iter().filter(|name| is_key(name)).collect();
    if names.is_empty() {
        return Ok(Outcome::Answer(VaultGetResult::default()));
    }
    let (member, storage) = (cx.member()?.id.clone(), cx.storage());
    let slow = async move { store::get(&storage, &member, &names).await };
    Ok(Vault::work_in(cx.own_lane::<Vault>(), slow, |(), _, Found { rows, more }| {
        Ok(Outcome::Answer(VaultGetResult { entries: rows.into_iter().map(secret).collect(), more }))
    }))
}

fn secret(row: Row) -> VaultSecret {
    VaultSecret {
        entry_type: row.entry_type(),
        key: row.name,
        ciphertext: row.ciphertext,
        nonce: row.nonce,
        sealed_key: row.sealed_key,
        mount_path: row.mount_path,
        signature: row.signature,
        signed_at_ms: row.signed_at_ms,
    }
}
