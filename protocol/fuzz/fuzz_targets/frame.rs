//! Any text as a frame of either direction: no panic, and what was read is written so that it reads the same.
#![no_main]

use claudemesh_protocol::frame::Head;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(head) = Head::read(text) else { return };
    if let Ok(message) = ClientMessage::read(&head, text) {
        let written = message.write(head.req_id.as_deref());
        let again = Head::read(&written).expect("what we write has a head");
        assert_eq!(again.tag, head.tag);
        assert_eq!(again.req_id, head.req_id);
        let read = ClientMessage::read(&again, &written).expect("what we write can be read");
        assert_eq!(written, read.write(head.req_id.as_deref()));
    }
    if let Ok(message) = ServerMessage::read(&head, text) {
        let written = message.write(None);
        let again = Head::read(&written).expect("what we write has a head");
        let read = ServerMessage::read(&again, &written).expect("what we write can be read");
        assert_eq!(written, read.write(None));
    }
});
