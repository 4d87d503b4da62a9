//! Every flag of every verb, and the test that shows what it does. A new flag without a line here, a line without its test,
//! and a test that does not use the flag fail.

use std::collections::BTreeMap;
use std::path::Path;

/// Verb and flag, then file and function of a test of its effect.
const SHOWN: &[(&str, &str, &str)] = &[
    ("", "--mesh", "mcp/flags.rs::a_mesh_has_a_title_and_a_short_name_of_ones_own"),
    ("", "--json", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("", "--quiet", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("", "--config-dir", "cli/meshes.rs::config_dir_flag_and_variable_choose_the_folder"),
    ("up", "--listen", "mcp/flags.rs::the_operators_token_opens_a_broker_that_others_reach"),
    ("up", "--demo", "mcp/local.rs::the_demo_leaves_nothing_behind"),
    ("up", "--detach", "mcp/local.rs::up_goes_on_in_the_background_until_down"),
    ("down", "--data-dir", "mcp/local.rs::up_goes_on_in_the_background_until_down"),
    ("service install", "--listen", "cli/service.rs::a_service_is_written_started_and_taken_away_again"),
    ("service install", "--name", "cli/service.rs::a_service_is_written_started_and_taken_away_again"),
    ("service install", "--print", "cli/service.rs::a_service_is_written_started_and_taken_away_again"),
    ("logs", "--lines", "cli/service.rs::logs_are_shown_and_followed"),
    ("logs", "--follow", "cli/service.rs::logs_are_shown_and_followed"),
    ("up", "--data-dir", "mcp/flags.rs::the_operators_token_opens_a_broker_that_others_reach"),
    ("up", "--name", "mcp/flags.rs::the_operators_token_opens_a_broker_that_others_reach"),
    ("create", "--broker", "mcp/flags.rs::a_mesh_has_a_title_and_a_short_name_of_ones_own"),
    ("create", "--name", "mcp/flags.rs::a_mesh_has_a_title_and_a_short_name_of_ones_own"),
    ("create", "--title", "mcp/flags.rs::a_mesh_has_a_title_and_a_short_name_of_ones_own"),
    ("create", "--operator-token", "mcp/flags.rs::the_operators_token_opens_a_broker_that_others_reach"),
    ("invite", "--role", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("invite", "--uses", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("invite", "--expires", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("invite", "--list", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("invite", "--revoke", "mcp/shell.rs::bad_links_and_used_up_invites_say_so"),
    ("invite", "--for-name", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("invite", "--groups", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("leave", "--purge", "mcp/meshes.rs::a_member_that_left_comes_back_with_its_key"),
    ("leave", "--yes", "mcp/meshes.rs::an_owner_is_asked_before_leaving_and_comes_back_with_the_owners_key"),
    ("mesh leave", "--purge", "mcp/meshes.rs::a_member_that_left_comes_back_with_its_key"),
    ("mesh leave", "--yes", "mcp/meshes.rs::a_member_that_left_comes_back_with_its_key"),
    ("mesh rejoin", "--name", "mcp/meshes.rs::an_owner_is_asked_before_leaving_and_comes_back_with_the_owners_key"),
    ("mesh rejoin", "--yes", "mcp/meshes.rs::an_owner_is_asked_before_leaving_and_comes_back_with_the_owners_key"),
    ("mesh rename", "--title", "mcp/meshes.rs::a_mesh_is_renamed_for_everyone_or_here_only"),
    ("mesh rename", "--local", "mcp/meshes.rs::a_mesh_is_renamed_for_everyone_or_here_only"),
    ("mesh archive", "--yes", "mcp/meshes.rs::an_archived_mesh_is_closed_until_it_is_restored"),
    ("mesh delete", "--yes", "mcp/meshes.rs::a_deleted_mesh_is_gone_and_its_name_is_free"),
    ("mesh settings", "--self-edit", "mcp/meshes.rs::what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may"),
    ("mesh settings", "--allow", "mcp/meshes.rs::what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may"),
    ("mesh settings", "--deny", "mcp/meshes.rs::what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may"),
    ("mesh settings", "--reset", "mcp/meshes.rs::what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may"),
    ("mesh settings", "--limit", "mcp/meshes.rs::what_a_mesh_allows_is_read_by_all_and_changed_by_those_who_may"),
    ("mesh export", "--out", "mcp/meshes.rs::a_copy_of_a_mesh_has_what_its_reader_may_read"),
    ("use", "--none", "mcp/meshes.rs::one_of_several_meshes_can_be_the_usual_one"),
    ("join", "--name", "mcp/flags.rs::an_invite_has_a_role_a_name_groups_an_end_and_a_place_in_the_list"),
    ("join", "--slug", "mcp/flags.rs::a_mesh_has_a_title_and_a_short_name_of_ones_own"),
    ("members remove", "--yes", "mcp/names.rs::members_have_roles_are_removed_and_take_over_the_mesh"),
    ("members transfer", "--yes", "mcp/names.rs::members_have_roles_are_removed_and_take_over_the_mesh"),
    ("rename member", "--who", "mcp/names.rs::a_renamed_member_and_session_answer_to_both_names"),
    ("rename session", "--session", "mcp/names.rs::a_renamed_member_and_session_answer_to_both_names"),
    ("peers", "--all", "mcp/shell.rs::info_ping_and_status_tell_about_the_mesh"),
    ("send", "--to", "mcp/flags.rs::a_file_goes_to_several_and_the_answer_refers_to_its_question"),
    ("send", "--file", "mcp/flags.rs::a_file_goes_to_several_and_the_answer_refers_to_its_question"),
    ("send", "--priority", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("send", "--self", "mcp/shell.rs::ids_and_json_errors_have_their_shapes"),
    ("send", "--reply-to", "mcp/flags.rs::a_file_goes_to_several_and_the_answer_refers_to_its_question"),
    ("ask", "--timeout", "mcp/questions.rs::the_shell_waits_in_vain_and_reads_the_answer_later"),
    ("ask", "--wait-offline", "mcp/flags.rs::a_question_of_the_shell_waits_for_who_is_away"),
    ("reply", "--decline", "mcp/in_session.rs::who_will_not_answer_says_so_and_the_asker_hears_it_at_once"),
    ("inbox", "--wait", "mcp/shell.rs::a_message_waits_is_read_once_and_its_receipt_follows"),
    ("inbox", "--all", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("inbox", "--limit", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("inbox", "--peek", "mcp/flags.rs::the_inbox_of_the_shell_counts_looks_and_waits_as_it_is_told"),
    ("send", "--no-queue", "mcp/outbox.rs::what_cannot_be_sent_is_queued_and_sent_once"),
    ("inbox", "--follow", "mcp/reading.rs::following_prints_each_message_once_and_marks_it"),
    ("outbox drop", "--all", "mcp/outbox.rs::what_cannot_be_sent_is_queued_and_sent_once"),
    ("sent", "--limit", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("sent", "--before", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("history", "--limit", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("history", "--before", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("export", "--with", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("export", "--format", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("export", "--out", "mcp/reading.rs::both_halves_of_a_conversation_are_paged_and_exported"),
    ("inbox", "--questions", "mcp/questions.rs::a_session_asks_and_the_shell_answers_once"),
    ("inbound set", "--from", "mcp/inbound_rule.rs::what_is_held_or_refused_reaches_no_route_until_it_is_released"),
    ("held release", "--all", "mcp/flags.rs::what_is_held_is_released_or_dropped_at_once"),
    ("held drop", "--all", "mcp/flags.rs::what_is_held_is_released_or_dropped_at_once"),
    ("approvers", "--quorum", "mcp/permissions.rs::approvers_are_other_members_and_as_many_as_are_needed"),
    ("approvers", "--expires", "mcp/permissions.rs::without_approvers_an_answer_in_time_or_a_log_the_dialog_decides"),
    ("permit", "--reason", "mcp/permissions.rs::one_denial_denies_and_the_model_reads_who_and_why"),
    ("permit", "--from", "mcp/permissions.rs::of_two_requests_with_one_id_the_key_decides"),
    ("permission-log", "--verify", "mcp/permissions.rs::two_approvers_allow_a_call_and_the_log_shows_it"),
    ("status set", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("summary", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("visible", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("profile", "--avatar", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("profile", "--title", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("profile", "--bio", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("profile", "--capabilities", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("profile", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("group join", "--as", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("group join", "--member", "mcp/names.rs::a_member_is_in_a_group_without_a_session_and_while_it_is_away"),
    ("group join", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("group leave", "--member", "mcp/names.rs::a_member_is_in_a_group_without_a_session_and_while_it_is_away"),
    ("group leave", "--session", "mcp/flags.rs::presence_writes_are_for_the_session_that_is_named"),
    ("topic create", "--description", "mcp/topics.rs::the_shell_makes_joins_writes_and_reads_a_topic"),
    ("topic create", "--visibility", "mcp/topics.rs::what_is_private_or_not_there_is_not_found"),
    ("topic join", "--as", "mcp/topics.rs::the_shell_makes_joins_writes_and_reads_a_topic"),
    ("topic history", "--limit", "mcp/topics.rs::the_shell_makes_joins_writes_and_reads_a_topic"),
    ("topic history", "--before", "mcp/topics.rs::the_shell_makes_joins_writes_and_reads_a_topic"),
    ("topic post", "--reply-to", "mcp/topics.rs::the_shell_makes_joins_writes_and_reads_a_topic"),
    ("clock set", "--at", "mcp/clock.rs::the_shell_sets_pauses_and_stops_the_clock"),
    ("state set", "--if-version", "mcp/state.rs::the_shell_sets_reads_lists_and_deletes_keys"),
    ("state set", "--ttl", "mcp/state.rs::the_shell_sets_reads_lists_and_deletes_keys"),
    ("state delete", "--if-version", "mcp/state.rs::the_shell_sets_reads_lists_and_deletes_keys"),
    ("task create", "--description", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task create", "--assignee", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task create", "--priority", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task create", "--tags", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task create", "--depends-on", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task create", "--due", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task list", "--status", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task list", "--assignee", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task list", "--tag", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task list", "--ready", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task list", "--limit", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task next", "--claim", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--title", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--description", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--assignee", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--priority", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--tags", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--depends-on", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--due", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("task update", "--if-version", "mcp/tasks.rs::the_shell_creates_claims_completes_and_shows_tasks"),
    ("stream create", "--keep-entries", "mcp/streams.rs::the_shell_makes_publishes_reads_and_deletes_streams"),
    ("stream create", "--keep-bytes", "mcp/streams.rs::the_shell_makes_publishes_reads_and_deletes_streams"),
    ("stream create", "--keep-for", "mcp/streams.rs::the_shell_makes_publishes_reads_and_deletes_streams"),
    ("stream read", "--from", "mcp/streams.rs::the_shell_makes_publishes_reads_and_deletes_streams"),
    ("stream read", "--limit", "mcp/streams.rs::the_shell_makes_publishes_reads_and_deletes_streams"),
    ("stream tail", "--from", "mcp/streams.rs::a_tail_prints_each_entry_once_and_a_consumer_goes_on"),
    ("stream tail", "--consumer", "mcp/streams.rs::a_tail_prints_each_entry_once_and_a_consumer_goes_on"),
    ("stream tail", "--count", "mcp/streams.rs::a_tail_prints_each_entry_once_and_a_consumer_goes_on"),
    ("context share", "--files", "mcp/contexts.rs::the_shell_shares_finds_and_lists_contexts"),
    ("context share", "--findings", "mcp/contexts.rs::the_shell_shares_finds_and_lists_contexts"),
    ("context share", "--tags", "mcp/contexts.rs::the_shell_shares_finds_and_lists_contexts"),
    ("context get", "--limit", "mcp/contexts.rs::the_shell_shares_finds_and_lists_contexts"),
    ("context list", "--limit", "mcp/contexts.rs::the_shell_shares_finds_and_lists_contexts"),
    ("remember", "--tags", "mcp/memory.rs::the_shell_remembers_recalls_lists_and_forgets"),
    ("memory remember", "--tags", "mcp/memory.rs::the_shell_remembers_recalls_lists_and_forgets"),
    ("recall", "--tag", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("recall", "--by", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("recall", "--since", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("recall", "--until", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("recall", "--limit", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("recall", "--full", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--tag", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--by", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--since", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--until", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--limit", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory recall", "--full", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--tag", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--by", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--since", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--until", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--limit", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("memory list", "--full", "mcp/memory.rs::conditions_and_lengths_choose_what_is_shown"),
    ("kick", "--stale", "mcp/flags.rs::moderation_takes_one_the_silent_or_everyone_else"),
    ("kick", "--all", "mcp/flags.rs::moderation_takes_one_the_silent_or_everyone_else"),
    ("disconnect", "--stale", "mcp/flags.rs::moderation_takes_one_the_silent_or_everyone_else"),
    ("disconnect", "--all", "mcp/flags.rs::moderation_takes_one_the_silent_or_everyone_else"),
    ("ban", "--reason", "mcp/flags.rs::the_reason_of_a_ban_is_in_the_brokers_log"),
    ("permissions", "--allow", "mcp/governance.rs::the_owner_allows_denies_and_resets_at_the_shell"),
    ("permissions", "--deny", "mcp/governance.rs::the_owner_allows_denies_and_resets_at_the_shell"),
    ("permissions", "--reset", "mcp/governance.rs::the_owner_allows_denies_and_resets_at_the_shell"),
    ("permissions", "--default", "mcp/governance.rs::the_owner_allows_denies_and_resets_at_the_shell"),
    ("audit list", "--limit", "mcp/governance.rs::the_log_is_listed_verified_and_exported"),
    ("audit list", "--event", "mcp/governance.rs::the_log_is_listed_verified_and_exported"),
    ("audit list", "--before", "mcp/governance.rs::the_log_is_listed_verified_and_exported"),
    ("audit export", "--out", "mcp/governance.rs::the_log_is_listed_verified_and_exported"),
    ("install", "--mesh", "cli/install.rs::a_mesh_can_have_a_server_of_its_own"),
    ("install", "--no-hooks", "cli/install.rs::print_and_no_hooks_do_less"),
    ("install", "--status-line", "cli/status_line.rs::another_line_keeps_its_place_above_ours"),
    ("install", "--permission-relay", "cli/install.rs::the_permission_hook_comes_when_it_is_asked_for_and_stays"),
    ("install", "--print", "cli/install.rs::print_and_no_hooks_do_less"),
    ("install", "--plugin-dir", "cli/plugin.rs::a_program_without_the_repository_writes_the_plugin_itself"),
    ("install", "--force", "cli/install.rs::other_programs_entry_is_replaced_only_with_force"),
    ("status-line", "--wrap", "cli/status_line.rs::another_line_keeps_its_place_above_ours"),
    ("notify", "--test", "cli/notify.rs::it_is_off_until_it_is_set_and_can_be_tried"),
    ("top", "--once", "mcp/top.rs::the_screen_follows_and_leaves_the_terminal_as_it_was"),
    ("notify", "--about", "mcp/notify.rs::messages_are_told_of_and_can_be_turned_off"),
    ("launch", "--join", "mcp/flags.rs::a_launch_joins_first"),
    ("launch", "--name", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("launch", "--title", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("launch", "--groups", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("launch", "--message-mode", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("launch", "--surface", "cli/launch.rs::the_surface_reaches_the_server"),
    ("launch", "--system-prompt", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("launch", "--yes", "cli/wizard.rs::yes_and_quiet_ask_nothing"),
    ("launch", "--ask", "cli/wizard.rs::the_wizard_asks_remembers_and_leaves_the_terminal_as_it_was"),
    ("launch", "--skip-permissions", "cli/launch.rs::yes_switches_no_permission_prompt_off"),
    ("launch", "--resume", "cli/launch.rs::conversations_are_resumed_and_continued"),
    ("launch", "--continue", "cli/launch.rs::conversations_are_resumed_and_continued"),
    ("launch", "--session-id", "cli/launch.rs::every_flag_shows_in_the_session"),
    ("doctor", "--no-loopback", "mcp/doctor.rs::the_doctor_sends_itself_a_message_over_every_route"),
    ("mcp", "--message-mode", "mcp/channel.rs::off_mode_shows_nothing_and_keeps_everything"),
    ("mcp", "--surface", "mcp/surface.rs::lean_keeps_what_the_shell_cannot_do_as_well"),
    ("man", "--dir", "cli/help.rs::completions_and_manual_pages_cover_every_verb"),
];

/// The flags of a command and of those below it, by the words that lead there.
fn flags_of(command: &clap::Command, path: &str, out: &mut BTreeMap<(String, String), ()>) {
    for argument in command.get_arguments() {
        let inherited = argument.is_global_set() && !path.is_empty();
        let known = matches!(argument.get_id().as_str(), "help" | "version");
        if let Some(long) = argument.get_long().filter(|_| !inherited && !known) {
            out.insert((path.to_owned(), format!("--{long}")), ());
        }
    }
    for verb in command.get_subcommands() {
        flags_of(verb, format!("{path} {}", verb.get_name()).trim(), out);
    }
}

/// The text of one test, from its name to the next function.
fn body<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let from = text.find(&format!("fn {name}("))?;
    let rest = &text[from..];
    let end = rest.find("\n}\n").unwrap_or(rest.len());
    Some(&rest[..end])
}

#[test]
fn every_flag_has_a_test_of_its_effect() {
    let mut flags = BTreeMap::new();
    flags_of(&claudemesh::cli::command(), "", &mut flags);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut faults = vec![];
    for (verb, flag, place) in SHOWN {
        if flags.remove(&((*verb).to_owned(), (*flag).to_owned())).is_none() {
            faults.push(format!("{verb} {flag} is twice here, or the program has no such flag"));
        }
        let (file, name) = place.split_once("::").unwrap();
        let text = std::fs::read_to_string(tests.join(file)).unwrap_or_default();
        match body(&text, name) {
            None => faults.push(format!("{verb} {flag}: {place} does not exist")),
            Some(body) if !body.contains(&format!("\"{flag}")) => {
                faults.push(format!("{verb} {flag}: {place} does not use it"));
            }
            Some(_) => {}
        }
    }
    faults.extend(flags.keys().map(|(verb, flag)| format!("{verb} {flag}: no test shows what it does")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
