use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{AT, MEMBER, MESH, groups, member_key, owner_key, session_key, signature};
use crate::capability::Capability;
use crate::error::HttpError;
use crate::features::capabilities::EditPermissions;
use crate::features::enrolment::{
    Claim, Claimed, CreateInvite, CreateMesh, InviteList, InvitePreset, InviteView, Join, Joined, MeshCreated,
};
use crate::features::members::{Grant, GrantsView, MemberList, MemberPatched, MemberView, PatchMember, UpdateGrants};
use crate::features::meshes::{
    LimitSetting, MeshDeleted, MeshSettings, MeshView, PatchMesh, PatchSelfEditable, PatchSettings, Rejoin, Rejoined,
};
use crate::features::presence::{HookSetStatus, HookSetStatusResult, PeerStatus};
use crate::session::SelfEditable;

/// The JSON bodies of the HTTP routes: route, what it is, body.
pub fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let mut all = Vec::new();
    let mut add = |route, what, body| all.push((route, what, body));
    add("POST /mesh", "request", json(&create_mesh()));
    add("POST /mesh", "201", json(&mesh_created()));
    add("POST /mesh/{id}/invites", "request", json(&create_invite()));
    add("POST /mesh/{id}/invites", "201", json(&invite_view()));
    add("GET /mesh/{id}/invites", "200", json(&InviteList { invites: vec![invite_view()] }));
    add("POST /join", "request", json(&join()));
    add("POST /join", "200", json(&joined()));
    add("POST /invites/{code}/claim", "request", json(&claim()));
    add("POST /invites/{code}/claim", "200", json(&claimed()));
    add("GET /mesh/{id}/members", "200", json(&MemberList { ok: true, members: vec![member_view()] }));
    add("PATCH /mesh/{id}/member/{memberId}", "request", json(&patch()));
    add(
        "PATCH /mesh/{id}/member/{memberId}",
        "200",
        json(&MemberPatched { ok: true, member: member_view(), changes: patch() }),
    );
    add("PATCH /upload/{fileId}", "200", json(&crate::features::files::samples::progress()));
    add("POST /upload", "200", json(&crate::features::files::samples::uploaded()));
    for (route, what, body) in meshes() {
        add(route, what, body);
    }
    let changes = BTreeMap::from([(member_key(), Some(vec![Grant::Dm, Grant::StateRead])), (session_key(), None)]);
    add("POST /mesh/{id}/grants", "request", json(&UpdateGrants { grants: changes }));
    let grants = BTreeMap::from([(member_key(), Grant::DEFAULT.to_vec()), (session_key(), vec![])]);
    add("GET|POST /mesh/{id}/grants", "200", json(&GrantsView { ok: true, grants }));
    let edit = EditPermissions {
        member_id: Some(MEMBER.into()),
        default: false,
        permissions: [(Capability::CanInvite, Some(true)), (Capability::CanSend, Some(false))].into(),
    };
    add("POST /cli/mesh/{slug}/permissions", "request", json(&edit));
    let permissions = crate::features::capabilities::samples::result();
    add("GET|POST /cli/mesh/{slug}/permissions", "200", json(&permissions));
    let hook = HookSetStatus {
        cwd: "/home/alice/shop".into(),
        status: PeerStatus::Working,
        pid: Some(4711),
        session_id: Some("5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into()),
    };
    add("POST /hook/set-status", "request", json(&hook));
    let matched = HookSetStatusResult { ok: true, sessions: Some(2), ..HookSetStatusResult::default() };
    add("POST /hook/set-status", "200, matched", json(&matched));
    let pending = HookSetStatusResult { ok: true, pending: true, ..HookSetStatusResult::default() };
    add("POST /hook/set-status", "200, no such session yet", json(&pending));
    let error = HttpError {
        ok: false,
        error: "rate_limited".into(),
        message: Some("too many requests".into()),
        retry_after_ms: Some(1_500),
    };
    add("any", "failure", json(&error));
    all
}

fn meshes() -> Vec<(&'static str, &'static str, Value)> {
    let view = MeshView {
        ok: true,
        mesh_id: MESH.into(),
        slug: "kitchen".into(),
        name: "The kitchen".into(),
        created_at: AT.into(),
        archived_at: None,
        role: "owner".into(),
        members: 3,
    };
    let rename = PatchMesh { slug: Some("bakery".into()), name: None };
    let rejoin = Rejoin { member_pubkey: member_key(), display_name: "Ann".into() };
    let rejoined = Rejoined {
        ok: true,
        mesh_id: MESH.into(),
        slug: "kitchen".into(),
        name: "The kitchen".into(),
        member_id: MEMBER.into(),
        display_name: "Ann".into(),
        already_member: false,
        former: vec![],
    };
    let change = PatchSettings {
        self_editable: Some(PatchSelfEditable { groups: Some(false), ..PatchSelfEditable::default() }),
        limits: BTreeMap::from([("messages.trace_budget".into(), Some(20)), ("topics.per_mesh".into(), None)]),
    };
    let settings = MeshSettings {
        ok: true,
        self_editable: SelfEditable { groups: false, ..SelfEditable::default() },
        defaults: [(Capability::CanSchedule, false)].into(),
        limits: vec![LimitSetting {
            name: "messages.trace_budget".into(),
            doc: "Messages of one exchange between agents in ten minutes.".into(),
            value: 20,
            operator: 60,
            own: Some(20),
        }],
    };
    vec![
        ("GET|PATCH /mesh/{id}", "200", json(&view)),
        ("PATCH /mesh/{id}", "request", json(&rename)),
        ("DELETE /mesh/{id}", "200", json(&MeshDeleted { ok: true, deleted: "kitchen".into() })),
        ("POST /mesh/{id}/archive|restore", "200", json(&MeshView { archived_at: Some(AT.into()), ..view.clone() })),
        ("POST /mesh/{id}/rejoin", "request", json(&rejoin)),
        ("POST /mesh/{id}/rejoin", "200", json(&rejoined)),
        ("PATCH /mesh/{id}/settings", "request", json(&change)),
        ("GET|PATCH /mesh/{id}/settings", "200", json(&settings)),
    ]
}

#[expect(clippy::expect_used, reason = "for tests and pages only")]
fn json<T: Serialize>(body: &T) -> Value {
    serde_json::to_value(body).expect("wire types serialise: string keys, no failing impl")
}

fn create_mesh() -> CreateMesh {
    CreateMesh {
        slug: "kitchen".into(),
        name: Some("The kitchen".into()),
        owner_pubkey: owner_key(),
        member_pubkey: member_key(),
        display_name: "Alice".into(),
    }
}

fn mesh_created() -> MeshCreated {
    MeshCreated {
        mesh_id: MESH.into(),
        slug: "kitchen".into(),
        name: "The kitchen".into(),
        member_id: MEMBER.into(),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
    }
}

fn create_invite() -> CreateInvite {
    CreateInvite {
        invite_id: "Qw3rTyUiOp1AsDfGhJkLzXcVbNm4567H".into(),
        code: "K7MPQ2RX".into(),
        role: "member".into(),
        max_uses: 5,
        expires_at: 1_776_246_783,
        signature_v2: signature(),
        v1_token_hash: Some("3c".repeat(32)),
        preset: Some(InvitePreset {
            display_name: Some("Bob".into()),
            role_tag: Some("reviewer".into()),
            groups: groups(),
            message_mode: Some("push".into()),
        }),
    }
}

fn invite_view() -> InviteView {
    InviteView {
        invite_id: "Qw3rTyUiOp1AsDfGhJkLzXcVbNm4567H".into(),
        code: "K7MPQ2RX".into(),
        url: "http://127.0.0.1:7900/i/K7MPQ2RX".into(),
        role: "member".into(),
        max_uses: 5,
        used_count: 1,
        expires_at: AT.into(),
        revoked_at: None,
    }
}

fn join() -> Join {
    Join {
        invite_token: "eyJ2IjoxfQ".into(),
        invite_payload: serde_json::json!({"v": 1}),
        peer_pubkey: member_key().to_hex(),
        display_name: "Bob".into(),
    }
}

fn joined() -> Joined {
    Joined { ok: true, member_id: Some(MEMBER.into()), already_member: Some(true), ..Joined::default() }
}

fn claim() -> Claim {
    Claim {
        recipient_x25519_pubkey: "0YzNFzkpJ8eZkzqP3Vt6WcH0mE4ZrJt2n5Qx7Rk1B3U".into(),
        peer_pubkey: member_key(),
        signature: signature(),
        display_name: Some("Bob".into()),
    }
}

fn claimed() -> Claimed {
    Claimed {
        sealed_root_key: "q83vEjRWeJCrze8SNFZ4kA".into(),
        mesh_id: MESH.into(),
        member_id: MEMBER.into(),
        owner_pubkey: owner_key(),
        canonical_v2: format!("v=2|{MESH}|Qw3rTyUiOp1AsDfGhJkLzXcVbNm4567H|1776246783|member|{}", owner_key()),
        signature_v2: Some(signature()),
        signed_by: None,
        mesh_slug: Some("kitchen".into()),
        broker_url: Some("ws://127.0.0.1:7900/ws".into()),
        role: Some("member".into()),
        already_member: false,
    }
}

fn member_view() -> MemberView {
    MemberView {
        id: MEMBER.into(),
        pubkey: member_key(),
        display_name: "Alice".into(),
        role_tag: None,
        groups: groups(),
        message_mode: "push".into(),
        permission: "owner".into(),
        joined_at: AT.into(),
        last_seen_at: None,
        online: true,
        session_count: 2,
    }
}

fn patch() -> PatchMember {
    PatchMember {
        display_name: Some("Alice B".into()),
        role_tag: Some(String::new()),
        groups: Some(vec![]),
        message_mode: Some("inbox".into()),
        permission: Some("admin".into()),
    }
}
