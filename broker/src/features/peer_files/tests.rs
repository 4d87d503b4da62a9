use std::time::Duration;

use claudemesh_protocol::message::ClientMessage;
use serde_json::Value;

use super::*;
use crate::mesh::testing::{Frames, TestMesh, key};

fn sealed(word: &str) -> Option<Sealed> {
    Some(Sealed { nonce: "n".into(), ciphertext: word.into() })
}

fn wants(target: u8, path: &str) -> PeerFileRequest {
    PeerFileRequest { target_pubkey: key(target).to_hex(), file_path: path.into(), ..PeerFileRequest::default() }
}

fn gives(id: &Value, path: &str, content: &str) -> PeerFileResponse {
    PeerFileResponse {
        requester_pubkey: key(11).to_hex(),
        file_path: path.into(),
        content: Some(content.into()),
        request_id: id.as_str().map(str::to_owned),
        ..PeerFileResponse::default()
    }
}

/// Sends a request; a refusal comes as the frame that the peer would get.
async fn tell(mesh: &mut TestMesh, at: PeerHandle, request: impl Into<ClientMessage>) -> Option<String> {
    let request = request.into();
    let outcome = mesh.step(Some(at), |features, cx| features.dispatch(cx, request));
    let told = match outcome {
        Ok(Outcome::Work(work)) => {
            mesh.core.work.push(work);
            None
        }
        Ok(_) => None,
        Err(refusal) => Some(refusal.code.as_str().to_owned()),
    };
    mesh.settle().await;
    told
}

fn code(frames: &Frames) -> Option<String> {
    TestMesh::take(frames, "error").first().and_then(|frame| frame["code"].as_str().map(str::to_owned))
}

/// Ann asks, Ben shares his folder, Eve is a third.
struct Team {
    mesh: TestMesh,
    ann: (PeerHandle, Frames),
    ben: (PeerHandle, Frames),
    eve: (PeerHandle, Frames),
}

impl Team {
    async fn new() -> Self {
        let mut mesh = TestMesh::new().await;
        let (ann, ben, eve) = (mesh.member("ann", 1).await, mesh.member("ben", 2).await, mesh.member("eve", 3).await);
        let ann = mesh.peer(&ann, "ann", Some(11));
        let ben = mesh.peer(&ben, "ben", Some(12));
        let eve = mesh.peer(&eve, "eve", Some(13));
        let mut team = Self { mesh, ann, ben, eve };
        team.share().await;
        team
    }

    async fn share(&mut self) {
        assert_eq!(tell(&mut self.mesh, self.ben.0, ShareFolder { shared: true }).await, None);
    }

    /// Ann asks; answers the id that Ben was told.
    async fn asked(&mut self, path: &str) -> Value {
        assert_eq!(tell(&mut self.mesh, self.ann.0, wants(12, path)).await, None);
        let told = TestMesh::take(&self.ben.1, "peer_file_request_forward");
        assert_eq!(told.len(), 1, "{told:?}");
        told[0]["requestId"].clone()
    }
}

#[actix_rt::test]
async fn only_the_peer_that_was_asked_answers_and_only_once() {
    let mut team = Box::pin(Team::new()).await;
    let id = team.asked("x.txt").await;
    let eve = team.eve.0;
    assert_eq!(tell(&mut team.mesh, eve, gives(&id, "x.txt", "ZXZpbA==")).await.as_deref(), Some("not_found"));
    // Nor one that guesses, or that names the path only.
    assert_eq!(tell(&mut team.mesh, eve, gives(&Value::Null, "x.txt", "ZXZpbA==")).await.as_deref(), Some("not_found"));
    assert!(TestMesh::take(&team.ann.1, "peer_file_response_forward").is_empty());
    let ben = team.ben.0;
    // Another path than the one that was asked for does not get through.
    assert_eq!(tell(&mut team.mesh, ben, gives(&id, "other.txt", "aGk=")).await, None);
    let got = TestMesh::take(&team.ann.1, "peer_file_response_forward");
    assert_eq!((got.len(), &got[0]["filePath"], &got[0]["content"]), (1, &json!("x.txt"), &json!("aGk=")));
    assert_eq!(got[0]["_reqId"], "r", "the id of the request of the one who asked");
    assert_eq!(tell(&mut team.mesh, ben, gives(&id, "x.txt", "YWdhaW4=")).await.as_deref(), Some("not_found"));
    assert!(TestMesh::take(&team.ann.1, "peer_file_response_forward").is_empty(), "a second answer is dropped");
    assert_eq!(team.mesh.features.peer_files.open(), 0);
}

#[actix_rt::test]
async fn an_answer_of_another_kind_or_form_is_none() {
    let mut team = Box::pin(Team::new()).await;
    let id = team.asked("x.txt").await;
    let list = PeerDirResponse {
        requester_pubkey: key(11).to_hex(),
        entries: Some(vec![]),
        request_id: id.as_str().map(str::to_owned),
        ..PeerDirResponse::default()
    };
    let (ann, ben) = (team.ann.0, team.ben.0);
    assert_eq!(tell(&mut team.mesh, ben, list).await.as_deref(), Some("not_found"));
    // What was asked under seal is not given in the clear.
    let wanted = PeerFileRequest { sealed: sealed("question"), file_path: String::new(), ..wants(12, "") };
    assert_eq!(tell(&mut team.mesh, ann, wanted.clone()).await, None);
    let told = TestMesh::take(&team.ben.1, "peer_file_request_forward");
    assert_eq!((&told[0]["sealed"]["ciphertext"], told[0].get("filePath")), (&json!("question"), None));
    assert_eq!(told[0]["asker"]["memberName"], "ann");
    tell(&mut team.mesh, ben, gives(&told[0]["requestId"], "", "aGk=")).await;
    assert_eq!(code(&team.ann.1).as_deref(), Some("invalid_args"));
    assert!(TestMesh::take(&team.ann.1, "peer_file_response_forward").is_empty());
    // A sealed answer is passed on as it is, and so is an error that needs no seal.
    assert_eq!(tell(&mut team.mesh, ann, wanted.clone()).await, None);
    let told = TestMesh::take(&team.ben.1, "peer_file_request_forward");
    let given = PeerFileResponse { content: None, sealed: sealed("answer"), ..gives(&told[0]["requestId"], "", "") };
    tell(&mut team.mesh, ben, given).await;
    let got = TestMesh::take(&team.ann.1, "peer_file_response_forward");
    assert_eq!(got[0]["sealed"]["ciphertext"], "answer");
    assert_eq!(tell(&mut team.mesh, ann, wanted).await, None);
    let told = TestMesh::take(&team.ben.1, "peer_file_request_forward");
    let why = Some("cannot be opened".to_owned());
    let given = PeerFileResponse { content: None, error: why, ..gives(&told[0]["requestId"], "", "") };
    tell(&mut team.mesh, ben, given).await;
    assert_eq!(TestMesh::take(&team.ann.1, "peer_file_response_forward")[0]["error"], "cannot be opened");
}

#[actix_rt::test]
async fn who_gets_no_answer_is_told_when_the_time_is_over_or_the_peer_is_gone() {
    let mut team = Box::pin(Team::new()).await;
    let id = team.asked("x.txt").await;
    team.mesh.advance(Duration::from_millis(14_999));
    team.mesh.settle().await;
    assert_eq!(code(&team.ann.1), None);
    team.mesh.advance(Duration::from_millis(1));
    team.mesh.settle().await;
    assert_eq!(code(&team.ann.1).as_deref(), Some("timeout"));
    let ben = team.ben.0;
    assert_eq!(tell(&mut team.mesh, ben, gives(&id, "x.txt", "bGF0ZQ==")).await.as_deref(), Some("not_found"));
    team.asked("y.txt").await;
    team.mesh.disconnect(ben);
    team.mesh.settle().await;
    assert_eq!(code(&team.ann.1).as_deref(), Some("peer_not_found"));
    // The socket that comes back has not said that it shares.
    team.ben.1 = team.mesh.connect(ben);
    let ann = team.ann.0;
    assert_eq!(tell(&mut team.mesh, ann, wants(12, "x.txt")).await.as_deref(), Some("not_shared"));
    team.share().await;
    let id = team.asked("z.txt").await;
    // Who asked went away: the answer is for no one, and its next socket does not get it.
    team.mesh.disconnect(ann);
    let frames = team.mesh.connect(ann);
    assert_eq!(tell(&mut team.mesh, ben, gives(&id, "z.txt", "aGk=")).await.as_deref(), Some("not_found"));
    assert!(frames.lock().unwrap().iter().all(|frame| frame["type"] != "peer_file_response_forward"));
}

#[actix_rt::test]
async fn requests_are_bounded_and_checked() {
    let mut team = Box::pin(Team::new()).await;
    let ann = team.ann.0;
    for number in 0..5 {
        team.asked(&format!("{number}")).await;
    }
    assert_eq!(tell(&mut team.mesh, ann, wants(12, "5")).await.as_deref(), Some("limit"));
    team.mesh.advance(Duration::from_secs(15));
    team.mesh.settle().await;
    TestMesh::take(&team.ann.1, "error");
    let long = "x".repeat(wire::MAX_PATH_BYTES + 1);
    let with_both = PeerFileRequest { sealed: sealed("x"), ..wants(12, "x") };
    let wait = |wait_ms| PeerFileRequest { wait_ms: Some(wait_ms), ..wants(12, "x") };
    let target = PeerFileRequest { target_pubkey: "ben".into(), ..wants(12, "x") };
    for bad in [wants(12, ""), wants(12, &long), wants(12, "a\0b"), with_both, wait(0), wait(120_001), target] {
        assert_eq!(tell(&mut team.mesh, ann, bad.clone()).await.as_deref(), Some("invalid_args"), "{bad:?}");
    }
    let pattern = Some("*".repeat(201));
    let list = PeerDirRequest { target_pubkey: key(12).to_hex(), pattern, ..PeerDirRequest::default() };
    assert_eq!(tell(&mut team.mesh, ann, list).await.as_deref(), Some("invalid_args"));
    assert_eq!(tell(&mut team.mesh, ann, wants(99, "x")).await.as_deref(), Some("peer_not_found"));
    assert_eq!(tell(&mut team.mesh, ann, wants(11, "x")).await.as_deref(), Some("peer_not_found"), "not oneself");
    assert_eq!(tell(&mut team.mesh, ann, wants(13, "x")).await.as_deref(), Some("not_shared"));
}

#[actix_rt::test]
async fn grants_and_capabilities_come_before_the_question() {
    let mut team = Box::pin(Team::new()).await;
    let ann = team.ann.0;
    let grant =
        |list: Vec<Grant>| move |member: &mut crate::mesh::peers::Member| drop(member.grants.insert(key(1), list));
    for (list, told) in [(vec![], Some("blocked")), (vec![Grant::Dm], Some("blocked")), (vec![Grant::FileRead], None)] {
        grant(list)(team.mesh.core.roster.member_mut(&"member-2".into()).unwrap());
        assert_eq!(tell(&mut team.mesh, ann, wants(12, "x")).await.as_deref(), told);
    }
    let of = crate::db::rights::Subject::Member("member-1".into());
    team.mesh.core.rights.put(&of, [(claudemesh_protocol::capability::Capability::CanReadShared, false)].into());
    assert_eq!(tell(&mut team.mesh, ann, wants(12, "x")).await.as_deref(), Some("forbidden"));
}

#[actix_rt::test]
async fn of_several_sessions_of_a_member_the_one_that_shares_is_asked() {
    let mut team = Box::pin(Team::new()).await;
    let (_, other) = team.mesh.peer(&"member-2".into(), "ben-2", Some(22));
    let ann = team.ann.0;
    assert_eq!(tell(&mut team.mesh, ann, wants(2, "x")).await, None, "by the member's key");
    assert_eq!(TestMesh::take(&team.ben.1, "peer_file_request_forward").len(), 1);
    assert!(TestMesh::take(&other, "peer_file_request_forward").is_empty());
    let ben = team.ben.0;
    tell(&mut team.mesh, ben, ShareFolder { shared: false }).await;
    assert_eq!(tell(&mut team.mesh, ann, wants(2, "x")).await.as_deref(), Some("not_shared"));
}

#[actix_rt::test]
async fn what_is_given_has_an_entry_in_the_audit_log_and_what_is_refused_has_none() {
    let mut team = Box::pin(Team::new()).await;
    let entries = async |team: &TestMesh| {
        let filter = audit::Filter { event: Some("folder_read".into()), ..audit::Filter::default() };
        audit::count(&team.core.storage(), &filter).await.unwrap()
    };
    let id = team.asked("secret-name.txt").await;
    let refused = PeerFileResponse { content: None, error: Some("no".into()), ..gives(&id, "secret-name.txt", "") };
    let ben = team.ben.0;
    tell(&mut team.mesh, ben, refused).await;
    assert_eq!(entries(&team.mesh).await, 0);
    let id = team.asked("secret-name.txt").await;
    tell(&mut team.mesh, ben, gives(&id, "secret-name.txt", "aGk=")).await;
    assert_eq!(entries(&team.mesh).await, 1);
}

#[actix_rt::test]
async fn an_older_peer_answers_by_its_own_words() {
    let mut team = Box::pin(Team::new()).await;
    let (ann, eve) = (team.ann.0, team.eve.0);
    team.mesh.core.roster.get_mut(eve).unwrap().older = true;
    let under_seal = PeerFileRequest { sealed: sealed("x"), file_path: String::new(), ..wants(13, "") };
    assert_eq!(tell(&mut team.mesh, ann, under_seal).await.as_deref(), Some("plain_only"));
    assert_eq!(tell(&mut team.mesh, ann, wants(13, "x.txt")).await, None);
    let told = TestMesh::take(&team.eve.1, "peer_file_request_forward");
    let keys: Vec<&str> = told[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["type", "requesterPubkey", "filePath", "_reqId"]);
    assert_eq!(told[0]["requesterPubkey"], json!(key(11).to_hex()));
    // It names no id: its own oldest request for that path is meant.
    tell(&mut team.mesh, eve, gives(&Value::Null, "x.txt", "aGk=")).await;
    assert_eq!(TestMesh::take(&team.ann.1, "peer_file_response_forward")[0]["content"], "aGk=");
}
