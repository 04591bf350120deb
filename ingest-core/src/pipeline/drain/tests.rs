use super::*;

fn at(generation: u64, position: u64) -> StoredCursor {
    StoredCursor {
        generation,
        position,
    }
}

fn again(generation: u64, is_loss: bool) -> Agreement {
    Agreement::BeginAgain {
        generation,
        is_loss,
    }
}

#[test]
fn a_cursor_within_the_journal_is_followed() {
    assert_eq!(
        agree(at(1, 100), Some(at(1, 100)), 200),
        Agreement::Continue(at(1, 100))
    );
    assert_eq!(
        agree(at(1, 100), Some(at(1, 200)), 200),
        Agreement::Continue(at(1, 200))
    );
}

#[test]
fn a_new_journal_begins() {
    assert_eq!(agree(at(1, 0), None, 0), Agreement::Begin);
}

#[test]
fn a_cursor_beyond_the_journal_means_that_the_journal_is_an_old_copy() {
    assert_eq!(agree(at(1, 100), Some(at(1, 201)), 200), again(2, false));
    assert_eq!(agree(at(1, 100), Some(at(3, 150)), 200), again(4, false));
}

#[test]
fn a_cursor_before_the_journal_means_that_the_database_is_an_old_copy() {
    assert_eq!(agree(at(1, 100), Some(at(1, 99)), 200), again(2, true));
    assert_eq!(agree(at(2, 100), Some(at(1, 150)), 200), again(3, true));
    assert_eq!(agree(at(1, 100), None, 200), again(2, true));
}

#[test]
fn once_agreed_the_cursor_may_pass_what_was_there_at_the_start() {
    assert_eq!(
        agree(at(1, 100), Some(at(1, 900)), u64::MAX),
        Agreement::Continue(at(1, 900))
    );
}
