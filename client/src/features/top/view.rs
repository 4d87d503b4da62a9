//! The screen of `top`: what fits into its width, and nothing that a peer wrote can move the cursor.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::{Board, Order, PeerRow};
use crate::output::clean;

/// Columns from which on a place for host, folder, model and groups is there.
const WIDE: u16 = 100;
/// Lines below the table for what waits.
const MAX_WAITING: usize = 6;

/// What the keys have chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    pub(super) order: Order,
    pub(super) away: bool,
    /// Rows above the first one that is shown.
    pub(super) scroll: usize,
    /// The mesh that is shown.
    pub(super) mesh: usize,
    pub(super) colour: bool,
}

/// Draws the chosen mesh.
pub(super) fn draw(frame: &mut Frame<'_>, boards: &[Board], choices: &Choices) {
    let Some(board) = boards.get(choices.mesh.min(boards.len().saturating_sub(1))) else { return };
    let below = board.waiting.len().min(MAX_WAITING);
    let height = u16::try_from(below).unwrap_or(0);
    let [head, table, waiting, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(height),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(board, boards.len(), choices, frame.area().width)), head);
    frame.render_widget(peers(board, choices, frame.area().width), table);
    let lines: Vec<Line<'_>> = board.waiting.iter().take(below).map(|one| waiting_line(one, choices)).collect();
    frame.render_widget(Paragraph::new(lines), waiting);
    frame.render_widget(Paragraph::new(keys(boards.len(), choices, frame.area().width)), foot);
}

fn paint(style: Style, choices: &Choices) -> Style {
    if choices.colour { style } else { Style::default().add_modifier(style.add_modifier) }
}

fn heading<'a>(board: &Board, meshes: usize, choices: &Choices, width: u16) -> Vec<Line<'a>> {
    let bold = paint(Style::default().add_modifier(Modifier::BOLD), choices);
    let counts = &board.counts;
    let mut first = vec![Span::styled(clean(&counts.mesh).into_owned(), bold)];
    if meshes > 1 {
        first.push(Span::raw(format!(" (mesh {} of {meshes})", choices.mesh + 1)));
    }
    let away = if counts.away > 0 { format!(", {} away", counts.away) } else { String::new() };
    first.push(Span::raw(format!("  {} online{away}", counts.online)));
    first.push(Span::raw(format!("  {:.0} msg/min", board.rate())));
    let warn = paint(Style::default().fg(Color::Yellow).add_modifier(Modifier::BOLD), choices);
    let mut second = vec![];
    for (count, word) in [
        (counts.unread, "unread"),
        (counts.held, "held"),
        (counts.questions, "questions"),
        (i64::try_from(counts.queued).unwrap_or(0), "queued"),
    ] {
        let text = format!("{word} {count}   ");
        second.push(if count > 0 { Span::styled(text, warn) } else { Span::raw(text) });
    }
    if let Some(trouble) = &board.trouble {
        let room = usize::from(width).saturating_sub(4);
        let text: String = clean(trouble).chars().take(room).collect();
        return vec![Line::from(first), Line::from(Span::styled(format!("! {text}"), warn))];
    }
    vec![Line::from(first), Line::from(second)]
}

fn peers<'a>(board: &Board, choices: &Choices, width: u16) -> Table<'a> {
    let wide = width >= WIDE;
    let bold = paint(Style::default().add_modifier(Modifier::BOLD), choices);
    let mut titles = vec!["NAME", "STATUS", "WAIT", "IN/m", "OUT/m"];
    let mut widths = vec![
        Constraint::Min(16),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    if wide {
        titles.extend(["HOST", "FOLDER", "MODEL", "GROUPS", "WORKS ON"]);
        widths[0] = Constraint::Length(24);
        widths.extend([
            Constraint::Length(14),
            Constraint::Fill(2),
            Constraint::Length(12),
            Constraint::Fill(1),
            Constraint::Fill(2),
        ]);
    }
    let all = board.sorted(choices.order, choices.away);
    let scroll = choices.scroll.min(all.len().saturating_sub(1));
    let rows: Vec<Row<'_>> = all.into_iter().skip(scroll).map(|peer| row(peer, wide, choices)).collect();
    Table::new(rows, widths).header(Row::new(titles).style(bold)).column_spacing(1)
}

fn row<'a>(peer: &PeerRow, wide: bool, choices: &Choices) -> Row<'a> {
    let colour = match peer.status {
        "working" => Color::Yellow,
        "dnd" => Color::Red,
        "idle" => Color::Green,
        _ => Color::DarkGray,
    };
    let cell = |text: &str| Cell::from(clean(text).into_owned());
    let number = |value: Option<f64>| Cell::from(value.map_or("-".into(), |value| format!("{value:.0}")));
    let name = if peer.own { format!("{} (yours)", peer.name) } else { peer.name.clone() };
    let mut cells = vec![
        cell(&name),
        Cell::from(peer.status).style(paint(Style::default().fg(colour), choices)),
        Cell::from(if peer.waiting > 0 { peer.waiting.to_string() } else { "-".into() }),
        number(peer.rate.map(|(got, _)| got)),
        number(peer.rate.map(|(_, sent)| sent)),
    ];
    if wide {
        cells.extend([&peer.host, &peer.folder, &peer.model, &peer.groups, &peer.summary].map(|text| cell(text)));
    }
    Row::new(cells)
}

fn waiting_line<'a>(one: &super::Waiting, choices: &Choices) -> Line<'a> {
    let bold = paint(Style::default().add_modifier(Modifier::BOLD), choices);
    Line::from(vec![
        Span::styled(format!("{} {} ", one.what, clean(&one.id)), bold),
        Span::raw(format!("{}: {}", clean(&one.from), clean(&one.text))),
    ])
}

fn keys(meshes: usize, choices: &Choices, width: u16) -> String {
    let mut text = format!(
        "q quit  s order: {}  a away: {}",
        choices.order.as_str(),
        if choices.away { "shown" } else { "hidden" }
    );
    if meshes > 1 {
        text += "  Tab mesh";
    }
    if width >= WIDE {
        text += "  up/down scroll  r refresh    claudemesh reply ID \"answer\"   claudemesh held release ID";
    } else {
        text += "  r refresh";
    }
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;
    use tokio::time::Instant;

    use super::super::tests::peer;
    use super::super::{Board, Waiting};
    use super::*;
    use crate::inbox::Tally;

    fn board() -> Board {
        let mut board = Board::new("team");
        let more = json!({"hostname": "laptop", "model": "opus", "groups": [{"name": "qa"}], "summary": "the parser", "waiting": 2});
        let evil = json!({"memberPubkey": "b".repeat(64), "summary": "\u{1b}[31mred\u{7}"});
        board.peers(
            &[peer("api", "working", more), peer("Bob\u{1b}[2J", "idle", evil)],
            &"b".repeat(64),
            "",
            Instant::now(),
        );
        board.tally(Tally { unread: 3, held: 1, questions: 1 }, 0);
        board.waiting = vec![Waiting {
            what: "question",
            id: "312b1423".into(),
            from: "Ann".into(),
            text: "which port?\nnow".into(),
        }];
        board
    }

    fn screen(width: u16, boards: &[Board], choices: &Choices) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 12)).unwrap();
        terminal.draw(|frame| draw(frame, boards, choices)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line =
            |y: u16| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>().trim_end().to_owned();
        (0..12).map(line).collect()
    }

    #[test]
    fn sixty_columns_have_what_matters_and_two_hundred_the_rest() {
        let boards = [board()];
        let narrow = screen(60, &boards, &Choices::default());
        assert_eq!(narrow[0], "team  2 online  0 msg/min");
        assert_eq!(narrow[1], "unread 3   held 1   questions 1   queued 0");
        assert!(narrow[2].starts_with("NAME") && narrow[2].ends_with("OUT/m"), "{narrow:#?}");
        assert!(narrow[3].starts_with("api") && narrow[3].contains("working  2"), "{narrow:#?}");
        assert!(narrow[4].contains("(yours)") && narrow[4].contains("idle"), "{narrow:#?}");
        assert_eq!(narrow[10], "question 312b1423 Ann: which port? now");
        assert!(narrow[11].starts_with("q quit  s order: name"), "{narrow:#?}");
        let wide = screen(200, &boards, &Choices::default());
        for text in ["HOST", "FOLDER", "MODEL", "GROUPS", "WORKS ON"] {
            assert!(wide[2].contains(text), "{wide:#?}");
        }
        for text in ["laptop", "/srv/api", "opus", "@qa", "the parser"] {
            assert!(wide[3].contains(text), "{wide:#?}");
        }
        assert!(narrow.iter().chain(&wide).all(|line| !line.contains(char::is_control)), "{wide:#?}");
    }

    #[test]
    fn keys_choose_mesh_order_and_place() {
        let mut second = Board::new("other");
        second.trouble = Some("the broker cannot be reached".into());
        let boards = [board(), second];
        let choices = Choices { order: Order::Status, scroll: 1, ..Choices::default() };
        let first = screen(60, &boards, &choices);
        assert!(first[0].starts_with("team (mesh 1 of 2)") && first[3].starts_with("Bob"), "{first:#?}");
        let other = screen(60, &boards, &Choices { mesh: 1, ..Choices::default() });
        assert_eq!(
            (other[0].as_str(), other[1].as_str()),
            ("other (mesh 2 of 2)  0 online  0 msg/min", "! the broker cannot be reached")
        );
        // Too small a window draws what it can.
        screen(10, &boards, &Choices::default());
    }
}
