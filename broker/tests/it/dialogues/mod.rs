//! What clients of before say and must get back, frame by frame: plain hellos without a word of what they can do.

mod player;

use anyhow::Result;
use claudemesh_testkit::broker::Database;
use claudemesh_testkit::broker_suite;

use player::play;

broker_suite! {
    async fn a_readable_text_to_a_name_is_refused_and_a_sealed_one_is_not(database: Database) -> Result<()> {
        play(database, r#"
            S session bob {"sessionId":"s"}
            A hello alice {"sessionId":"a","sessionPubkey":"$a1"}
            A > {"type":"send","id":"1","targetSpec":"bob","priority":"next","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"aGVsbG8gQm9i"}
            A < {"type":"ack","id":"1","queued":false,"code":"not_encrypted"}
            A > {"type":"send","id":"2","targetSpec":"bob","priority":"next","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ"}
            A < {"type":"ack","id":"2","queued":true,"messageId":"$m"}
            S < {"type":"push","messageId":"$m","senderMemberName":"alice"}
        "#).await
    }

    async fn groups_peers_and_moderation_say_what_they_said_before(database: Database) -> Result<()> {
        play(database, r#"
            O hello owner {"sessionId":"o"}
            B session bob {"sessionId":"s"}
            A hello alice {"sessionId":"a","sessionPubkey":"$a1"}
            A > {"type":"join_group","name":"dev","role":"lead"}
            B > {"type":"join_group","name":"dev","asMember":true,"confirm":true,"_reqId":"r1"}
            B < {"type":"done","_reqId":"r1","member":true}
            A > {"type":"send","id":"1","targetSpec":"@dev","priority":"now","nonce":"n","ciphertext":"aGk="}
            A < {"type":"ack","id":"1","queued":true,"online":1,"messageId":"$m"}
            B < {"type":"push","messageId":"$m","targetSpec":"@dev"}
            B > {"type":"client_ack","messageIds":["$m"]}
            B close
            A > {"type":"mesh_info","_reqId":"i"}
            A < {"type":"mesh_info_result","yourGroups":[{"name":"dev","role":"lead"}]}
            O > {"type":"ban","_reqId":"b"}
            O < {"type":"error","code":"invalid","_reqId":"b"}
            O > {"type":"kick","_reqId":"k"}
            O < {"type":"kick_ack","kicked":[],"affected":[]}
        "#).await
    }

    async fn a_verb_that_comes_and_goes_takes_nothing_with_it(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"aGk="}
            A < {"type":"ack","id":"1","queued":true,"stage":"stored","online":0,"waiting":1,"messageId":"$m"}
            V hello bob {"sessionId":"v1","sessionPubkey":"$v1"}
            V < {"type":"hello_ack","waiting":{"now":1,"next":0,"low":0}}
            V close
            W hello bob {"sessionId":"w1","sessionPubkey":"$w1"}
            W < {"type":"push","messageId":"$m"}
            W close
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":false,"stage":"stored"}
            D hello bob {"sessionId":"daemon-1"}
            D < {"type":"hello_ack","waiting":{"now":1}}
            D < {"type":"push","messageId":"$m","ciphertext":"aGk="}
            D > {"type":"client_ack","clientMessageId":null,"brokerMessageId":"$m"}
            D -
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":true,"stage":"received"}
            E hello bob {"sessionId":"daemon-2"}
            E -
        "#).await
    }

    async fn what_came_while_only_a_verb_was_there_goes_to_the_next_connection(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            V hello bob {"sessionId":"v1","sessionPubkey":"$v1"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"aGk="}
            A < {"type":"ack","id":"1","queued":true,"messageId":"$m"}
            V < {"type":"push","messageId":"$m"}
            V close
            S session bob {"sessionId":"s"}
            S < {"type":"push","messageId":"$m"}
            S > {"type":"client_ack","messageIds":["$m"]}
            S -
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":true,"stage":"received"}
        "#).await
    }

    async fn what_a_connection_did_not_take_goes_to_the_one_that_is_there(database: Database) -> Result<()> {
        play(database, r#"
            O hello owner {"sessionId":"o"}
            O > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            O < {"type":"ack","id":"1","queued":true,"messageId":"$m"}
            V hello bob {"sessionId":"v1","sessionPubkey":"$v1"}
            V < {"type":"push","messageId":"$m"}
            S session bob {"sessionId":"s"}
            S -
            V close
            S < {"type":"push","messageId":"$m"}
            O > {"type":"disconnect","target":"$S.session"}
            S closed 1000
            W hello bob {"sessionId":"w1","sessionPubkey":"$w1"}
            W < {"type":"push","messageId":"$m"}
            O > {"type":"kick","target":"$w1"}
            W closed 4001
            X hello bob {"sessionId":"x1","sessionPubkey":"$x1"}
            X < {"type":"push","messageId":"$m"}
            Y hello bob {"sessionId":"x1","sessionPubkey":"$x1"}
            Y < {"type":"push","messageId":"$m"}
            restart
            D hello bob {"sessionId":"daemon-1"}
            D < {"type":"push","messageId":"$m"}
            D > {"type":"client_ack","brokerMessageId":"$m"}
            D -
            Z hello bob {"sessionId":"z1","sessionPubkey":"$z1"}
            Z -
        "#).await
    }

    async fn a_copy_that_was_left_behind_is_not_for_who_has_the_message(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            S session bob {"sessionId":"s"}
            V hello bob {"sessionId":"v1","sessionPubkey":"$v1"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":true,"messageId":"$m"}
            V < {"type":"push","messageId":"$m"}
            S < {"type":"push","messageId":"$m"}
            S > {"type":"client_ack","messageIds":["$m"]}
            S -
            V close
            S -
            W hello bob {"sessionId":"w1","sessionPubkey":"$w1"}
            W -
            restart
            X hello bob {"sessionId":"x1","sessionPubkey":"$x1"}
            X -
        "#).await
    }

    async fn a_push_counts_when_its_reader_was_there_for_half_a_minute(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            D hello bob {"sessionId":"daemon-1"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":true,"stage":"stored","online":1,"messageId":"$m"}
            D < {"type":"push","messageId":"$m"}
            D pass 20
            D close
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":false,"stage":"stored"}
            D hello bob {"sessionId":"daemon-2"}
            D < {"type":"push","messageId":"$m"}
            D pass 35
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":true,"stage":"received"}
            D close
            D hello bob {"sessionId":"daemon-3"}
            D -
        "#).await
    }

    async fn who_acknowledged_once_is_asked_for_it_from_then_on(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            D hello bob {"sessionId":"daemon-1"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":true,"messageId":"$m"}
            D < {"type":"push","messageId":"$m"}
            D > {"type":"client_ack","clientMessageId":"c","brokerMessageId":"$m"}
            A > {"type":"send","id":"2","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"Mg=="}
            A < {"type":"ack","id":"2","queued":true,"messageId":"$n"}
            D < {"type":"push","messageId":"$n"}
            D pass 40
            A > {"type":"message_status","messageId":"$n"}
            A < {"type":"message_status_result","delivered":false,"stage":"stored"}
            D close
            D hello bob {"sessionId":"daemon-1"}
            D < {"type":"push","messageId":"$n"}
            D pass 40
            A > {"type":"message_status","messageId":"$n"}
            A < {"type":"message_status_result","delivered":false,"stage":"stored"}
        "#).await
    }

    async fn a_session_that_was_closed_is_not_taken_for_the_one_that_is_there(database: Database) -> Result<()> {
        play(database, r#"
            O session owner {"sessionId":"o"}
            C hello carol {"sessionId":"c"}
            H hello hal {"sessionId":"h1","sessionPubkey":"$h1","displayName":"Hal at work"}
            H close
            I hello hal {"sessionId":"h2","sessionPubkey":"$h2","displayName":"Hal at work"}
            C > {"type":"list_peers"}
            C < {"type":"peers_list","peers":[{"pubkey":"$O.session"},{"pubkey":"$carol.member"},{"pubkey":"$h2"}]}
            O > {"type":"list_peers"}
            O < {"type":"peers_list","peers":[{"pubkey":"$O.session"},{"pubkey":"$carol.member"},{"pubkey":"$h2","online":true},{"pubkey":"$h1","online":false}]}
            O > {"type":"resolve_target","target":"hal AT work"}
            O < {"type":"resolve_target_result","resolved":{"kind":"session","pubkey":"$h2","online":true}}
            C > {"type":"send","id":"1","targetSpec":"Hal at work","priority":"now","nonce":"n","ciphertext":"q83vEjRWeJCrze8SNFZ4kA=="}
            C < {"type":"ack","id":"1","queued":true,"online":1}
            I < {"type":"push","ciphertext":"q83vEjRWeJCrze8SNFZ4kA=="}
            O > {"type":"kick","target":"Hal at work"}
            O < {"type":"kick_ack","kicked":["Hal at work"]}
            I closed 4001
            J hello hal {"sessionId":"h3","sessionPubkey":"$h3","displayName":"Hal at work"}
            K hello hal {"sessionId":"h4","sessionPubkey":"$h4","displayName":"Hal at work"}
            O > {"type":"resolve_target","target":"Hal at work"}
            O < {"type":"error","code":"ambiguous_target","candidates":[{"pubkey":"$h3"},{"pubkey":"$h4"}]}
        "#).await
    }

    async fn a_verb_inside_a_session_acts_for_it_and_leaves_nothing(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            S session bob {"sessionId":"uuid","protocolVersion":null,"capabilities":null}
            V hello bob {"sessionId":"uuid","sessionPubkey":"$v","channel":"claude-code"}
            V > {"type":"join_group","name":"dev","role":"lead"}
            V > {"type":"set_summary","summary":"at it"}
            V > {"type":"set_status","status":"dnd"}
            V > {"type":"mesh_info"}
            V < {"type":"mesh_info_result","yourGroups":[{"name":"dev","role":"lead"}]}
            A > {"type":"list_peers"}
            A < {"type":"peers_list","peers":[{"pubkey":"$A.session"},{"pubkey":"$S.session","status":"dnd","summary":"at it","groups":[{"name":"dev","role":"lead"}]}]}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":true,"recipients":[{"pubkey":"$S.session"}]}
            S < {"type":"push","ciphertext":"MQ=="}
            V -
            V > {"type":"send","id":"2","targetSpec":"$A.session","priority":"now","nonce":"n","ciphertext":"Mg=="}
            V < {"type":"ack","id":"2","queued":true}
            A < {"type":"push","ciphertext":"Mg==","senderPubkey":"$v","senderMemberPubkey":"$bob.member"}
            V close
            S -
            A > {"type":"list_peers"}
            A < {"type":"peers_list","peers":[{"pubkey":"$A.session"},{"pubkey":"$S.session"}]}
        "#).await
    }

    async fn a_member_that_returns_under_a_new_key_is_as_it_was(database: Database) -> Result<()> {
        play(database, r#"
            W session walt {"sessionId":"w"}
            S hello bob {"sessionId":"1-1","sessionPubkey":"$s1"}
            W < {"type":"push","event":"peer_joined","eventData":{"name":"bob","pubkey":"$s1"}}
            S > {"type":"join_group","name":"g9","role":"lead"}
            S > {"type":"set_summary","summary":"sum-1"}
            S > {"type":"set_profile","title":"t"}
            S < {"type":"ack"}
            S > {"type":"set_stats","stats":{"toolCalls":57}}
            S -
            S close
            S hello bob {"sessionId":"2-2","sessionPubkey":"$s2"}
            S < {"type":"hello_ack","restored":true,"lastSummary":"sum-1","lastSeenAt":"$t","restoredGroups":[{"name":"g9","role":"lead"}],"restoredStats":{"toolCalls":57}}
            W < {"type":"push","event":"peer_returned","eventData":{"name":"bob","pubkey":"$s2","groups":[{"name":"g9","role":"lead"}],"summary":"sum-1"}}
            W > {"type":"list_peers"}
            W < {"type":"peers_list","peers":[{"pubkey":"$W.session"},{"pubkey":"$s2","summary":null,"profile":{"title":"t"},"groups":[{"name":"g9","role":"lead"}]},{"pubkey":"$s1"}]}
            S > {"type":"set_visible","visible":false}
            S < {"type":"ack"}
            T hello bob {"sessionId":"3-3","sessionPubkey":"$s3","groups":[{"name":"own"}]}
            T < {"type":"hello_ack","restoredGroups":null}
            T > {"type":"list_peers"}
            T < {"type":"peers_list","peers":[{"pubkey":"$W.session"},{"pubkey":"$s2","visible":false,"groups":[{"name":"g9"}]},{"pubkey":"$s3","visible":true,"groups":[{"name":"own"}]}]}
            T close
            W pass 2
            S close
            restart
            W session walt {"sessionId":"w"}
            S hello bob {"sessionId":"4-4","sessionPubkey":"$s4"}
            S < {"type":"hello_ack","restored":true,"restoredGroups":[{"name":"g9","role":"lead"}]}
            W > {"type":"list_peers"}
            W < {"type":"peers_list","peers":[{"pubkey":"$W.session"}]}
            O session bob {"sessionId":"ours"}
            O < {"type":"hello_ack","restored":null}
            O > {"type":"list_peers"}
            O < {"type":"peers_list","peers":[{},{"pubkey":"$s4","visible":false},{"pubkey":"$O.session","visible":true,"groups":[]}]}
        "#).await
    }

    async fn receipts_climb_for_who_took_what_was_for_its_member(database: Database) -> Result<()> {
        play(database, r#"
            A session alice {"sessionId":"a"}
            A > {"type":"send","id":"1","targetSpec":"$bob.member","priority":"next","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":true,"online":0,"messageId":"$m"}
            A > {"type":"send","id":"2","targetSpec":"$bob.member","priority":"next","nonce":"n","ciphertext":"Mg=="}
            A < {"type":"ack","id":"2","queued":true,"online":0,"messageId":"$n"}
            B session bob {"sessionId":"b"}
            B < {"type":"push","messageId":"$m"}
            B < {"type":"push","messageId":"$n"}
            B > {"type":"client_ack","brokerMessageId":"$m"}
            B -
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":true,"stage":"received","recipients":[{"status":"delivered","stage":"received"}]}
            B > {"type":"client_ack","messageIds":["$m"],"stage":"handed","route":"channel"}
            B -
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","stage":"handed","recipients":[{"route":"channel"}]}
            B > {"type":"client_ack","messageIds":["$m"],"stage":"seen","route":"channel"}
            B > {"type":"client_ack","messageIds":["$n"]}
            B -
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","stage":"seen"}
            restart
            A session alice {"sessionId":"a"}
            A > {"type":"message_status","messageId":"$m"}
            A < {"type":"message_status_result","delivered":true,"stage":"seen","recipients":[{"status":"delivered","stage":"seen","route":"channel"}]}
            A > {"type":"message_status","messageId":"$n"}
            A < {"type":"message_status_result","delivered":true,"stage":"received"}
            B session bob {"sessionId":"b"}
            B -
            B > {"type":"client_ack","messageIds":["$n"],"stage":"seen","route":"pull"}
            B pass 3
            A asks {"type":"message_status","messageId":"$n"} {"type":"message_status_result","stage":"seen","recipients":[{"route":"pull"}]}
        "#).await
    }

    async fn nothing_is_pushed_to_the_connection_that_sent_it(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a","sessionPubkey":"$a"}
            A > {"type":"send","id":"1","targetSpec":"$a","priority":"now","nonce":"n","ciphertext":"X19waW5nX18="}
            A < {"type":"ack","id":"1","queued":false,"code":"unknown_target"}
            A > {"type":"send","id":"2","targetSpec":"$alice.member","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"2","queued":true,"online":0,"messageId":"$m"}
            A -
            B session bob {"sessionId":"b"}
            A > {"type":"send","id":"3","targetSpec":["$a","$B.session"],"priority":"now","nonce":"n","ciphertext":"Mg=="}
            A < {"type":"ack","id":"3","queued":true,"online":1}
            B < {"type":"push","ciphertext":"Mg=="}
            A -
            S session alice {"sessionId":"s"}
            S < {"type":"push","messageId":"$m"}
        "#).await
    }

    async fn refusals_are_worded_as_clients_of_before_read_them(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            A > {"type":"send","id":"1","targetSpec":"@dev","priority":"now","nonce":"n","ciphertext":"MQ=="}
            A < {"type":"ack","id":"1","queued":false,"error":"unknown_target: no one else is in @dev (not_found)"}
            B session bob {"sessionId":"b"}
            B > {"type":"send","id":"1","targetSpec":"@dev","priority":"now","nonce":"n","ciphertext":"MQ=="}
            B < {"type":"ack","id":"1","queued":false,"error":"unknown_target: no one else is in @dev"}
            O hello owner {"sessionId":"o"}
            O > {"type":"kick","target":"nobody"}
            O < {"type":"kick_ack","kicked":[],"affected":[]}
            O > {"type":"disconnect"}
            O < {"type":"disconnect_ack","kicked":[],"affected":[]}
            P session owner {"sessionId":"p"}
            P > {"type":"kick","target":"nobody"}
            P < {"type":"error","code":"not_found"}
        "#).await
    }

    async fn state_is_shared_without_a_word_to_the_one_who_writes(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"set_state","key":"k","value":{"a":[1,null],"s":"ü"}}
            B < {"type":"state_change","key":"k","value":{"a":[1,null],"s":"ü"},"updatedBy":"alice"}
            A > {"type":"set_state","key":"n","value":null}
            B < {"type":"state_change","key":"n","value":null,"updatedBy":"alice"}
            A > {"type":"set_state","key":"novalue"}
            A < {"type":"error","code":"invalid_args"}
            B > {"type":"get_state","key":"k","_reqId":"r1"}
            B < {"type":"state_result","key":"k","value":{"a":[1,null],"s":"ü"},"updatedBy":"alice","_reqId":"r1"}
            B > {"type":"get_state","key":"missing","_reqId":"r2"}
            B < {"type":"state_result","key":"missing","value":null,"updatedBy":"","updatedAt":"","_reqId":"r2"}
            B > {"type":"list_state"}
            B < {"type":"state_list","entries":[{"key":"k","value":{"a":[1,null],"s":"ü"},"updatedBy":"alice"},{"key":"n","value":null}]}
            A > {"type":"set_state","key":"k","value":5}
            A > {"type":"get_state","key":"k"}
            A < {"type":"state_result","key":"k","value":5}
            B < {"type":"state_change","key":"k","value":5,"updatedBy":"alice"}
            A -
            B -
        "#).await
    }

    async fn a_lead_stays_lead_when_it_joins_again(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            A > {"type":"topic_create","name":"plans","_reqId":"r1"}
            A < {"type":"topic_created","topic":{"name":"plans"},"_reqId":"r1"}
            A > {"type":"topic_join","topic":"plans","role":"lead"}
            A > {"type":"topic_join","topic":"plans"}
            A > {"type":"topic_members","topic":"plans","_reqId":"r2"}
            A < {"type":"topic_members_response","members":[{"displayName":"alice","role":"lead"}],"_reqId":"r2"}
        "#).await
    }

    async fn what_happens_to_a_message_of_a_topic_is_news_for_newer_clients(database: Database) -> Result<()> {
        play(database, r##"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"topic_create","name":"plans","_reqId":"r1"}
            A < {"type":"topic_created","topic":{"name":"plans"},"_reqId":"r1"}
            B > {"type":"topic_join","topic":"plans"}
            B > {"type":"topic_members","topic":"plans","_reqId":"r2"}
            B < {"type":"topic_members_response","topic":"plans","_reqId":"r2"}
            A > {"type":"send","id":"m1","targetSpec":"#plans","priority":"now","nonce":"","ciphertext":"QGJvYg=="}
            A < {"type":"ack","id":"m1","messageId":"$one","queued":true}
            B < {"type":"push","messageId":"$one","topic":"plans","ciphertext":"QGJvYg=="}
            A > {"type":"topic_edit","topic":"plans","messageId":"$one","ciphertext":"aGk=","_reqId":"r3"}
            A < {"type":"topic_message_result","message":{"ciphertext":"aGk="},"_reqId":"r3"}
            A -
            B -
        "##).await
    }

    async fn tasks_are_answered_with_the_list_of_all(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"create_task","title":"T1","assignee":"Ben","priority":"high","tags":["x"]}
            A < {"type":"task_created","id":"$one"}
            A > {"type":"create_task","title":"T2"}
            A < {"type":"task_created","id":"$two"}
            B > {"type":"claim_task","taskId":"$one"}
            B < {"type":"task_list","tasks":[{"id":"$two","title":"T2","assignee":null,"claimedBy":null,"status":"open","priority":"normal","createdBy":"alice","tags":[]},{"id":"$one","title":"T1","assignee":"Ben","claimedBy":"bob","status":"claimed","priority":"high","createdBy":"alice","tags":["x"]}]}
            A > {"type":"claim_task","taskId":"$one"}
            A < {"type":"error","code":"task_not_claimable","message":"task is not open or does not exist"}
            B > {"type":"complete_task","taskId":"$one","result":"ok"}
            B < {"type":"task_list","tasks":[{"id":"$two"},{"id":"$one","claimedBy":"bob","status":"done"}]}
            B > {"type":"complete_task","taskId":"nope"}
            B < {"type":"error","code":"task_not_found","message":"task not found in this mesh"}
            A > {"type":"list_tasks","status":"done"}
            A < {"type":"task_list","tasks":[{"id":"$one","title":"T1","status":"done"}]}
            A > {"type":"list_tasks","assignee":"Ben"}
            A < {"type":"task_list","tasks":[{"id":"$one"}]}
            A > {"type":"list_tasks","status":"claimed"}
            A < {"type":"task_list","tasks":[]}
            A > {"type":"mesh_info"}
            A < {"type":"mesh_info_result","tasks":{"open":1,"claimed":0,"done":1}}
            A -
            B -
        "#).await
    }

    async fn memory_is_stored_found_and_forgotten_by_clients_of_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"remember","content":"Deploys run on Fridays at noon","tags":["ops"],"_reqId":"r1"}
            A < {"type":"memory_stored","id":"$m","memoryId":"$m","_reqId":"r1"}
            A > {"type":"remember","content":"No tags here about deployments","_reqId":"r2"}
            A < {"type":"memory_stored","id":"$n","_reqId":"r2"}
            B > {"type":"recall","query":"deploy","_reqId":"r3"}
            B < {"type":"memory_results","memories":[{"id":"$n","content":"No tags here about deployments","tags":[],"rememberedBy":"alice"},{"id":"$m","content":"Deploys run on Fridays at noon","tags":["ops"],"rememberedBy":"alice"}],"_reqId":"r3"}
            B > {"type":"recall","query":"","_reqId":"r4"}
            B < {"type":"memory_results","memories":[],"_reqId":"r4"}
            B > {"type":"recall","query":"'; drop"}
            B < {"type":"memory_results","memories":[]}
            A > {"type":"forget","memoryId":"$m"}
            A < {"type":"ack","id":"$m","messageId":"$m","queued":false}
            A > {"type":"forget","memoryId":"nope"}
            A < {"type":"ack","id":"nope","messageId":"nope","queued":false}
            B > {"type":"recall","query":"fridays"}
            B < {"type":"memory_results","memories":[]}
            A > {"type":"remember","_reqId":"r5"}
            A < {"type":"error","code":"invalid_args","_reqId":"r5"}
            A -
            B -
        "#).await
    }

    async fn skills_are_shared_read_and_removed_by_clients_of_before(database: Database) -> Result<()> {
        play(database, r#"
            O hello owner {"sessionId":"o"}
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"share_skill","name":"sk","description":"d","instructions":"i","tags":["t"],"manifest":{"when_to_use":"w","allowed_tools":["Bash"]}}
            A < {"type":"skill_ack","name":"sk","action":"shared"}
            B > {"type":"get_skill","name":"sk"}
            B < {"type":"skill_data","skill":{"name":"sk","description":"d","instructions":"i","tags":["t"],"author":"alice","manifest":{"when_to_use":"w","allowed_tools":["Bash"]}}}
            B > {"type":"get_skill","name":"nope"}
            B < {"type":"skill_data","skill":null}
            B > {"type":"list_skills"}
            B < {"type":"skill_list","skills":[{"name":"sk","description":"d","tags":["t"],"author":"alice"}]}
            B > {"type":"list_skills","query":"nomatch"}
            B < {"type":"skill_list","skills":[]}
            B > {"type":"share_skill","name":"sk","description":"d2","instructions":"i2"}
            B < {"type":"error","code":"forbidden"}
            O > {"type":"share_skill","name":"sk","description":"d2","instructions":"i2"}
            O < {"type":"skill_ack","name":"sk","action":"shared"}
            B > {"type":"get_skill","name":"sk"}
            B < {"type":"skill_data","skill":{"name":"sk","description":"d2","instructions":"i2","tags":[],"author":"team-owner","manifest":null}}
            A > {"type":"remove_skill","name":"sk"}
            A < {"type":"skill_ack","name":"sk","action":"removed"}
            A > {"type":"remove_skill","name":"sk"}
            A < {"type":"skill_ack","name":"sk","action":"not_found"}
            A -
            B -
            O -
        "#).await
    }

    async fn a_vault_is_filled_listed_and_read_by_clients_of_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"vault_set","key":"K1","ciphertext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","sealed_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","entry_type":"env","description":"d"}
            A < {"type":"vault_ack","key":"K1","action":"stored"}
            A > {"type":"vault_set","key":"F1","ciphertext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","sealed_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","entry_type":"file","mount_path":"/m"}
            A < {"type":"vault_ack","key":"F1","action":"stored"}
            A > {"type":"vault_list"}
            A < {"type":"vault_list_result","entries":[{"key":"F1","entry_type":"file","mount_path":"/m","description":null},{"key":"K1","entry_type":"env","mount_path":null,"description":"d"}]}
            B > {"type":"vault_list"}
            B < {"type":"vault_list_result","entries":[]}
            A > {"type":"vault_get","keys":["K1","nope"]}
            A < {"type":"vault_get_result","entries":[{"key":"K1","ciphertext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==","entry_type":"env","mount_path":null}]}
            A > {"type":"vault_get","keys":[]}
            A < {"type":"vault_get_result","entries":[]}
            A > {"type":"vault_delete","key":"K1"}
            A < {"type":"vault_ack","key":"K1","action":"deleted"}
            A > {"type":"vault_delete","key":"K1"}
            A < {"type":"vault_ack","key":"K1","action":"not_found"}
            A > {"type":"vault_set","key":"P1","ciphertext":"cGxhaW4=","nonce":"bm9uY2U=","sealed_key":"c2VhbA==","entry_type":"env"}
            A < {"type":"error","code":"not_encrypted"}
            A -
            B -
        "#).await
    }

    async fn mcp_servers_are_called_as_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            S session sue {"sessionId":"s"}
            A > {"type":"mcp_register","serverName":"srv","description":"d","tools":[{"name":"add","description":"adds","inputSchema":{"type":"object"}}],"_reqId":"r1"}
            A < {"type":"mcp_register_ack","serverName":"srv","toolCount":1,"_reqId":"r1"}
            B < {"type":"push","subtype":"system","event":"mcp_registered","eventData":{"serverName":"srv","description":"d","tools":["add"],"hostedBy":"alice"}}
            B > {"type":"mcp_list","_reqId":"r1"}
            B < {"type":"mcp_list_result","servers":[{"name":"srv","description":"d","hostedBy":"alice","tools":[{"name":"add","description":"adds"}],"online":true}],"_reqId":"r1"}
            B > {"type":"mcp_call","serverName":"srv","toolName":"add","args":{"x":1},"_reqId":"r2"}
            A < {"type":"mcp_call_forward","callId":"$c","serverName":"srv","toolName":"add","args":{"x":1},"callerName":"bob","timeoutMs":null,"progress":null,"parts":null}
            A > {"type":"mcp_call_response","callId":"$c","result":{"sum":3}}
            B < {"type":"mcp_call_result","result":{"sum":3},"_reqId":"r2"}
            B > {"type":"mcp_call","serverName":"nosuch","toolName":"t","args":{},"_reqId":"r3"}
            B < {"type":"mcp_call_result","error":"MCP server \"nosuch\" not found in mesh","_reqId":"r3"}
            B > {"type":"mcp_unregister","serverName":"srv"}
            B < {"type":"error","code":"forbidden"}
            A > {"type":"mcp_unregister","serverName":"srv"}
            B < {"type":"push","subtype":"system","event":"mcp_unregistered","eventData":{"serverName":"srv","hostedBy":"alice"}}
            A > {"type":"mcp_register","serverName":"srv","description":"d","tools":[],"persistent":true}
            A < {"type":"mcp_register_ack","serverName":"srv","toolCount":0}
            B < {"type":"push","event":"mcp_registered"}
            S < {"type":"push","event":"mcp_registered"}
            A close
            S pass 95
            S < {"type":"push","event":"mcp_offline","eventData":{"serverName":"srv","hostedBy":"alice"}}
            C hello alice {"sessionId":"c"}
            C < {"type":"push","event":"mcp_restored","eventData":{"serverName":"srv","hostedBy":"alice"}}
        "#).await
    }

    async fn hosted_servers_are_asked_for_as_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            A > {"type":"mcp_catalog","_reqId":"r1"}
            A < {"type":"mcp_catalog_result","services":[],"_reqId":"r1"}
            A > {"type":"mcp_scope","server_name":"nosuch","_reqId":"r2"}
            A < {"type":"mcp_scope_result","server_name":"nosuch","scope":{"type":"peer"},"deployed_by":"unknown","_reqId":"r2"}
            A > {"type":"mcp_deploy","server_name":"bad name","source":{"type":"git","url":"x"},"_reqId":"r3"}
            A < {"type":"error","code":"invalid_name","message":"service name must be 1-64 chars, alphanumeric/hyphens/underscores, starting with alphanumeric","_reqId":"r3"}
            A > {"type":"mcp_deploy","server_name":"svc","source":{"type":"git","url":"https://git.example.org/x"},"scope":{"type":"group","group":"g"},"_reqId":"r4"}
            A < {"type":"error","code":"services_off","_reqId":"r4"}
        "#).await
    }

    async fn files_are_listed_read_granted_and_deleted_by_clients_of_before(database: Database) -> Result<()> {
        play(database, r#"
            N session alice {"sessionId":"n"}
            M session bob {"sessionId":"m"}
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            N > {"type":"start_upload","client_upload_id":"1","name":"f.txt","size":0,"tags":["t"],"persistent":true}
            N < {"type":"upload_started","fileId":"$f","offset":0,"size":0}
            N > {"type":"finish_upload","fileId":"$f","sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
            N < {"type":"upload_finished","file":{"id":"$f"}}
            N pass 1
            N > {"type":"start_upload","client_upload_id":"2","name":"e.bin","size":0,"encryption":"secretbox","keys":[{"peerPubkey":"$alice.member","sealedKey":"c2VhbA=="}]}
            N < {"type":"upload_started","fileId":"$e"}
            N > {"type":"finish_upload","fileId":"$e","sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
            N < {"type":"upload_finished","file":{"id":"$e"}}
            N > {"type":"start_upload","client_upload_id":"3","name":"a.txt","size":0,"targetSpec":"$alice.member"}
            N < {"type":"upload_started","fileId":"$a"}
            N > {"type":"finish_upload","fileId":"$a","sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
            N < {"type":"upload_finished","file":{"id":"$a"}}
            B > {"type":"list_files"}
            B < {"type":"file_list","files":[{"id":"$e","name":"e.bin","size":0,"tags":[],"uploadedBy":"$who","persistent":false,"encrypted":true},{"id":"$f","name":"f.txt","size":0,"tags":["t"],"uploadedBy":"$who","persistent":true,"encrypted":false}]}
            B > {"type":"list_files","query":"F.TX"}
            B < {"type":"file_list","files":[{"id":"$f"}]}
            B > {"type":"list_files","from":"$who"}
            B < {"type":"file_list","files":[{"id":"$e"},{"id":"$f"}]}
            B > {"type":"get_file","fileId":"$f"}
            B < {"type":"file_url","fileId":"$f","url":"$url","name":"f.txt","encrypted":false,"sealedKey":null,"file":null}
            B > {"type":"get_file","fileId":"$e"}
            B < {"type":"error","code":"forbidden","message":"no decryption key for this file"}
            A > {"type":"get_file","fileId":"$e"}
            A < {"type":"file_url","fileId":"$e","name":"e.bin","encrypted":true,"sealedKey":"c2VhbA=="}
            B > {"type":"get_file","fileId":"$a"}
            B < {"type":"error","code":"forbidden","message":"file not targeted at you"}
            B > {"type":"grant_file_access","fileId":"$e","peerPubkey":"$bob.member","sealedKey":"eA=="}
            B < {"type":"error","code":"forbidden"}
            A > {"type":"grant_file_access","fileId":"$e","peerPubkey":"$bob.member","sealedKey":"eA=="}
            A < {"type":"grant_file_access_ok","fileId":"$e","peerPubkey":"$bob.member"}
            M < {"type":"file_change","what":"granted","fileId":"$e","by":"alice"}
            B > {"type":"get_file","fileId":"$e"}
            B < {"type":"file_url","fileId":"$e","name":"e.bin","encrypted":true,"sealedKey":"eA=="}
            A > {"type":"file_status","fileId":"$e"}
            A < {"type":"file_status_result","fileId":"$e","accesses":[{"peerName":"bob"},{"peerName":"alice"}]}
            B > {"type":"delete_file","fileId":"$e"}
            B < {"type":"error","code":"forbidden"}
            A > {"type":"delete_file","fileId":"$e"}
            A < {"type":"ack","messageId":"$e","queued":false}
            N < {"type":"file_change","what":"deleted","fileId":"$e","by":"alice"}
            B > {"type":"get_file","fileId":"$e"}
            B < {"type":"error","code":"not_found","message":"file not found"}
            A -
            B -
            M -
            N -
        "#).await
    }

    async fn streams_reach_subscribers_but_the_one_who_publishes(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"create_stream","name":"st"}
            A < {"type":"stream_created","id":"$id","name":"st"}
            A > {"type":"create_stream","name":"st"}
            A < {"type":"stream_created","id":"$id","name":"st"}
            B > {"type":"subscribe","stream":"st"}
            B < {"type":"subscribed","stream":"st"}
            A > {"type":"subscribe","stream":"st"}
            A < {"type":"subscribed","stream":"st"}
            A > {"type":"publish","stream":"st","data":{"n":1}}
            B < {"type":"stream_data","stream":"st","data":{"n":1},"publishedBy":"alice","offset":null}
            B > {"type":"subscribe","stream":"later"}
            B < {"type":"subscribed","stream":"later"}
            A > {"type":"publish","stream":"later","data":null}
            B < {"type":"stream_data","stream":"later","data":null,"publishedBy":"alice","offset":null}
            A > {"type":"list_streams"}
            A < {"type":"stream_list","streams":[{"name":"later","createdBy":"alice","subscriberCount":1},{"id":"$id","name":"st","createdBy":"alice","subscriberCount":2}]}
            B > {"type":"unsubscribe","stream":"st"}
            A > {"type":"mesh_info"}
            A < {"type":"mesh_info_result","streams":["later","st"]}
            A > {"type":"publish","stream":"st"}
            A < {"type":"error","code":"invalid_args"}
            A -
            B -
        "#).await
    }

    async fn files_of_peers_are_relayed_in_the_words_of_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a","sessionPubkey":"$a1"}
            B hello bob {"sessionId":"b","sessionPubkey":"$b1"}
            E hello eve {"sessionId":"e"}
            A > {"type":"peer_file_request","targetPubkey":"$bob.member","filePath":"x.txt"}
            B < {"type":"peer_file_request_forward","requesterPubkey":"$a1","filePath":"x.txt","_reqId":"$r1","requestId":null,"asker":null,"wait_ms":null,"sealed":null}
            E > {"type":"peer_file_response","requesterPubkey":"$a1","filePath":"x.txt","content":"ZXZpbA==","_reqId":"$r1"}
            E < {"type":"error","code":"not_found","_reqId":"$r1"}
            B > {"type":"peer_file_response","requesterPubkey":"$a1","filePath":"x.txt","content":"aGk=","_reqId":"$r1"}
            A < {"type":"peer_file_response_forward","filePath":"x.txt","content":"aGk=","error":null,"code":null,"sealed":null,"_reqId":null}
            A > {"type":"peer_file_request","targetPubkey":"$b1","filePath":"y.txt","_reqId":"q7"}
            B < {"type":"peer_file_request_forward","requesterPubkey":"$a1","filePath":"y.txt","_reqId":"$r2"}
            B > {"type":"peer_file_response","requesterPubkey":"$a1","filePath":"y.txt","error":"file not found"}
            A < {"type":"peer_file_response_forward","filePath":"y.txt","error":"file not found","content":null,"_reqId":"q7"}
            A > {"type":"peer_file_request","targetPubkey":"0000000000000000000000000000000000000000000000000000000000000000","filePath":"x"}
            A < {"type":"error","code":"peer_not_found","message":"target peer not connected"}
            A > {"type":"peer_dir_request","targetPubkey":"$b1","dirPath":".","pattern":"*.txt"}
            B < {"type":"peer_dir_request_forward","requesterPubkey":"$a1","dirPath":".","pattern":"*.txt","_reqId":"$r3"}
            B > {"type":"peer_dir_response","requesterPubkey":"$a1","dirPath":".","entries":["got.txt","sub/","sub/x.txt"],"_reqId":"$r3"}
            A < {"type":"peer_dir_response_forward","dirPath":".","entries":["got.txt","sub/","sub/x.txt"],"error":null}
            B > {"type":"peer_dir_response","requesterPubkey":"$a1","dirPath":".","entries":["evil"],"_reqId":"$r3"}
            B < {"type":"error","code":"not_found"}
            A -
            B -
        "#).await
    }

    async fn a_clock_is_set_paused_and_heard(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"get_clock"}
            A < {"type":"clock_status","speed":0,"paused":true,"tick":0}
            A > {"type":"pause_clock"}
            A < {"type":"error","code":"no_clock","message":"No clock running for this mesh"}
            A > {"type":"set_clock","speed":500}
            A < {"type":"clock_status","speed":100,"paused":false,"tick":0}
            B pass 1
            A < {"type":"push","subtype":"system","event":"tick","eventData":{"tick":1,"speed":100}}
            B < {"type":"push","subtype":"system","event":"tick","eventData":{"tick":1,"speed":100}}
            A > {"type":"set_clock","speed":"abc"}
            A < {"type":"clock_status","speed":1,"paused":false,"tick":1}
            A > {"type":"pause_clock"}
            A < {"type":"clock_status","speed":1,"paused":true,"tick":1}
            A > {"type":"resume_clock"}
            A < {"type":"clock_status","speed":1,"paused":false,"tick":1}
        "#).await
    }

    async fn what_is_scheduled_is_told_as_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"schedule","to":"*","message":"past","deliverAt":1775641983000,"subtype":"reminder"}
            A < {"type":"scheduled_ack","scheduledId":"$p","deliverAt":1775641983000,"cron":null,"nextTimes":null}
            B < {"type":"push","messageId":"$m","senderPubkey":"$alice.member","priority":"now","nonce":"","ciphertext":"cGFzdA==","subtype":"reminder"}
            A < {"type":"ack","messageId":"$m","queued":true}
            A > {"type":"schedule","to":"*","message":"cron","deliverAt":0,"cron":"*/5 * * * *","recurring":true}
            A < {"type":"scheduled_ack","scheduledId":"$c","cron":"*/5 * * * *"}
            A > {"type":"schedule","to":"*","message":"bad","deliverAt":0,"cron":"61 * * * *"}
            A < {"type":"error","code":"invalid_cron"}
            A > {"type":"list_scheduled"}
            A < {"type":"scheduled_list","messages":[{"id":"$c","to":"*","message":"cron","cron":"*/5 * * * *","firedCount":0}]}
            B > {"type":"list_scheduled"}
            B < {"type":"scheduled_list","messages":[]}
            B > {"type":"cancel_scheduled","scheduledId":"$c"}
            B < {"type":"cancel_scheduled_ack","scheduledId":"$c","ok":false}
            A > {"type":"cancel_scheduled","scheduledId":"$c"}
            A < {"type":"cancel_scheduled_ack","scheduledId":"$c","ok":true}
            A > {"type":"cancel_scheduled","scheduledId":"$c"}
            A < {"type":"cancel_scheduled_ack","scheduledId":"$c","ok":true}
            A > {"type":"cancel_scheduled","scheduledId":"nope"}
            A < {"type":"cancel_scheduled_ack","scheduledId":"nope","ok":false}
            B -
        "#).await
    }

    async fn contexts_are_shared_found_and_listed_by_clients_of_before(database: Database) -> Result<()> {
        play(database, r#"
            A hello alice {"sessionId":"a"}
            B hello bob {"sessionId":"b"}
            A > {"type":"share_context","summary":"Auth","filesRead":["a.ts"],"keyFindings":["jwt"],"tags":["auth"]}
            A < {"type":"context_shared","id":"$c"}
            B < {"type":"state_change","key":"_context:alice","value":"Auth","updatedBy":"alice"}
            B > {"type":"share_context","summary":"Only summary"}
            B < {"type":"context_shared","id":"$d"}
            A < {"type":"state_change","key":"_context:bob","value":"Only summary","updatedBy":"bob"}
            B > {"type":"get_context","query":"auth","_reqId":"r1"}
            B < {"type":"context_results","contexts":[{"peerName":"alice","summary":"Auth","filesRead":["a.ts"],"keyFindings":["jwt"],"tags":["auth"]}],"_reqId":"r1"}
            B > {"type":"list_contexts","_reqId":"r2"}
            B < {"type":"context_list","contexts":[{"peerName":"bob","summary":"Only summary","tags":[]},{"peerName":"alice","summary":"Auth","tags":["auth"]}],"_reqId":"r2"}
            A -
            B -
        "#).await
    }
}
