#!/usr/bin/env python3
"""Writes libsodium.json beside this file: what libsodium (through PyNaCl) makes of fixed keys and texts.

    python3 -m venv venv && venv/bin/pip install pynacl && venv/bin/python generate.py

Everything but the sealed boxes is reproducible; those have an ephemeral key, so only opening is tested.
The Rust tests in ../vectors.rs read the file and must agree with every byte.
"""

import base64
import hashlib
import json
import pathlib

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

HERE = pathlib.Path(__file__).parent
MESH = "kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo"
MEMBER = "Zx81QmNvB4cRt6YuIoPaSdFgHjKlWeT0"


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def seed(name):
    return hashlib.sha256(b"claudemesh vector|" + name.encode()).digest()


def long_text(name, size):
    """Hex digits of SHA-256 over a counter: big, dull, and the same in every language."""
    out = ""
    counter = 0
    while len(out) < size:
        out += hashlib.sha256(f"{name}|{counter}".encode()).hexdigest()
        counter += 1
    return out[:size]


class Key:
    def __init__(self, name):
        self.name, self.seed = name, seed(name)
        self.public, self.secret = sodium.crypto_sign_seed_keypair(self.seed)
        self.x_public = sodium.crypto_sign_ed25519_pk_to_curve25519(self.public)
        self.x_secret = sodium.crypto_sign_ed25519_sk_to_curve25519(self.secret)

    def sign(self, text):
        return sodium.crypto_sign(text.encode(), self.secret)[:64].hex()

    def entry(self):
        return {
            "name": self.name,
            "seed": self.seed.hex(),
            "public": self.public.hex(),
            "secret": self.secret.hex(),
            "x25519_public": self.x_public.hex(),
            "x25519_secret": self.x_secret.hex(),
        }


KEYS = {name: Key(name) for name in ["alice", "bob", "owner", "session"]}
ALICE, BOB, OWNER, SESSION = (KEYS[name] for name in ["alice", "bob", "owner", "session"])

TEXTS = {
    "empty": "",
    "ascii": "deploy is green",
    "unicode": "Grüße, 世界 👩‍👩‍👧 \u0000 \u202e end",
    "newlines": "a\nb\r\nc\t\"quoted\" \\ </channel>",
    "4 KiB": long_text("4 KiB", 4096),
}


def signatures():
    for name, text in TEXTS.items():
        yield {"name": name, "key": "alice", "text": text, "signature": ALICE.sign(text)}


def boxes():
    for name, text in TEXTS.items():
        nonce = seed("nonce " + name)[:24]
        sealed = sodium.crypto_box(text.encode(), nonce, BOB.x_public, ALICE.x_secret)
        yield {"name": name, "sender": "alice", "recipient": "bob", "nonce": b64(nonce), "text": text, "ciphertext": b64(sealed)}


def big_box():
    size = 1 << 20
    text = long_text("1 MiB", size)
    nonce = seed("nonce 1 MiB")[:24]
    sealed = sodium.crypto_box(text.encode(), nonce, BOB.x_public, ALICE.x_secret)
    return {
        "sender": "alice",
        "recipient": "bob",
        "nonce": b64(nonce),
        "text_name": "1 MiB",
        "text_chars": size,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "ciphertext_sha256": hashlib.sha256(sealed).hexdigest(),
    }


def seals():
    secret = seed("x25519 recipient")
    public = sodium.crypto_scalarmult_base(secret)
    for name, data in {"empty": b"", "root key": seed("root key"), "text": TEXTS["unicode"].encode()}.items():
        sealed = sodium.crypto_box_seal(data, public)
        assert sodium.crypto_box_seal_open(sealed, public, secret) == data
        yield {"name": name, "x25519_secret": secret.hex(), "x25519_public": public.hex(), "sealed": b64(sealed), "opened": data.hex()}


def hello():
    timestamp = "1775641983000"
    text = f"{MESH}|{MEMBER}|{ALICE.public.hex()}|{timestamp}"
    return {"mesh": MESH, "member": MEMBER, "key": "alice", "timestamp": timestamp, "canonical": text, "signature": ALICE.sign(text)}


def session_hello():
    expires, timestamp = "1775685183000", "1775641983000"
    parent, session = ALICE.public.hex(), SESSION.public.hex()
    attest = f"claudemesh-session-attest|{parent}|{session}|{expires}"
    text = f"claudemesh-session-hello|{MESH}|{parent}|{session}|{timestamp}"
    return {
        "mesh": MESH,
        "parent": "alice",
        "session": "session",
        "expires_at": expires,
        "timestamp": timestamp,
        "attestation_canonical": attest,
        "attestation_signature": ALICE.sign(attest),
        "canonical": text,
        "signature": SESSION.sign(text),
    }


def invite_v1():
    payload = {
        "v": 1,
        "mesh_id": MESH,
        "mesh_slug": "kitchen",
        "broker_url": "wss://mesh.example.org/ws",
        "expires_at": 1776246783,
        "mesh_root_key": b64url(seed("root key")),
        "role": "member",
        "owner_pubkey": OWNER.public.hex(),
    }
    canonical = "|".join(str(value) for value in payload.values())
    payload["signature"] = OWNER.sign(canonical)
    token = b64url(json.dumps(payload, separators=(",", ":")).encode())
    return {"payload": payload, "canonical": canonical, "token": token}


def invite_v2():
    invite = "Qw3rTyUiOp1AsDfGhJkLzXcVbNm4567H"
    canonical = f"v=2|{MESH}|{invite}|1776246783|admin|{OWNER.public.hex()}"
    recipient = b64url(sodium.crypto_scalarmult_base(seed("x25519 recipient")))
    claim = f"claudemesh-claim|K7MPQ2RX|{BOB.public.hex()}|{recipient}"
    return {
        "mesh": MESH,
        "invite": invite,
        "expires_at": 1776246783,
        "role": "admin",
        "owner": "owner",
        "canonical": canonical,
        "signature": OWNER.sign(canonical),
        "code": "K7MPQ2RX",
        "recipient": recipient,
        "claim_key": "bob",
        "claim_canonical": claim,
        "claim_signature": BOB.sign(claim),
    }


def http():
    body = '{"grants":{}}'
    digest = hashlib.sha256(body.encode()).hexdigest()
    text = f"claudemesh-http|POST|/mesh/{MESH}/grants?dry=1|1775641983000|{digest}"
    return {
        "method": "POST",
        "path": f"/mesh/{MESH}/grants?dry=1",
        "body": body,
        "timestamp": 1775641983000,
        "key": "alice",
        "canonical": text,
        "signature": ALICE.sign(text),
    }


def permission():
    digest = hashlib.sha256(b"Bash\0" + b'{"command":"make deploy"}').hexdigest()
    expires, signed = 1775642103000, 1775641990000
    text = f"claudemesh-permission|{MESH}|qwert|{SESSION.public.hex()}|{digest}|allow|{expires}|{signed}"
    record = hashlib.sha256(b"record").hexdigest()
    return {
        "mesh": MESH,
        "request": "qwert",
        "session": "session",
        "digest": digest,
        "behavior": "allow",
        "expires_at": expires,
        "signed_at": signed,
        "key": "alice",
        "canonical": text,
        "signature": ALICE.sign(text),
        "record": record,
        "audit_canonical": f"claudemesh-audit|{record}",
        "audit_signature": ALICE.sign(f"claudemesh-audit|{record}"),
        "safety_number": safety_number(ALICE.public, BOB.public),
    }


def safety_number(one, other):
    digest = hashlib.sha256(min(one, other) + max(one, other)).digest()
    bits = int.from_bytes(digest[:15], "big")
    return " ".join(f"{(bits >> (100 - 20 * group) & 0xFFFFF) % 100000:05}" for group in range(6))


def fingerprint():
    body = TEXTS["unicode"]
    parts = "\0".join(["1", "dm", BOB.public.hex(), "", "next", ""]) + "\0"
    digest = hashlib.sha256(parts.encode() + hashlib.sha256(body.encode()).digest()).hexdigest()
    return {"kind": "dm", "ref": BOB.public.hex(), "reply_to": "", "priority": "next", "body": body, "fingerprint": digest}


def weak_keys():
    """Points of small order, in canonical and other encodings; libsodium refuses every one."""
    high = "ff" * 30
    points = [
        "01" + "00" * 31,
        "ec" + high + "7f",
        "00" * 32,
        "00" * 31 + "80",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ed" + high + "7f",
        "ed" + high + "ff",
        "ee" + high + "7f",
    ]
    for point in points:
        try:
            sodium.crypto_sign_ed25519_pk_to_curve25519(bytes.fromhex(point))
        except (CryptoError, RuntimeError):
            yield point
        else:
            raise SystemExit(f"libsodium takes {point}")


def secretboxes():
    """Files of the existing form: nonce, then crypto_secretbox_easy of the whole."""
    for name, text in [("empty", b""), ("text", b"hello"), ("long", long_text("secretbox", 5_000).encode())]:
        key, nonce = seed("secretbox key"), seed("secretbox nonce " + name)[:24]
        sealed = nonce + sodium.crypto_secretbox(text, nonce, key)
        yield {"name": name, "key": key.hex(), "nonce": nonce.hex(), "plain": text.hex(), "sealed": sealed.hex()}


def file_chunks():
    """A file of 64 KiB and 100 bytes in chunks, as crypto_aead_xchacha20poly1305_ietf seals each."""
    key = seed("file key")
    before = b"CMF1" + bytes([16]) + seed("file nonce")[:19]
    derived = lambda purpose: hashlib.sha256(purpose + b"\0" + key).digest()
    header = before + hashlib.sha256(derived(b"claudemesh file check") + before).digest()
    plain = long_text("file", 65_636).encode()[:65_636]
    chunks = [plain[:65_536], plain[65_536:]]
    sealed = header
    for number, chunk in enumerate(chunks):
        nonce = before[5:] + number.to_bytes(4, "big") + bytes([number + 1 == len(chunks)])
        sealed += sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(chunk, header, nonce, derived(b"claudemesh file chunks"))
    return {
        "key": key.hex(),
        "header": header.hex(),
        "plain_name": "file",
        "plain_bytes": len(plain),
        "sealed_bytes": len(sealed),
        "sealed_sha256": hashlib.sha256(sealed).hexdigest(),
    }


vectors = {
    "keys": [key.entry() for key in KEYS.values()],
    "sign": list(signatures()),
    "box": list(boxes()),
    "big_box": big_box(),
    "seal": list(seals()),
    "hello": hello(),
    "session_hello": session_hello(),
    "invite_v1": invite_v1(),
    "invite_v2": invite_v2(),
    "http": http(),
    "permission": permission(),
    "fingerprint": fingerprint(),
    "weak_keys": list(weak_keys()),
    "secretbox": list(secretboxes()),
    "file_chunks": file_chunks(),
}
(HERE / "libsodium.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")
