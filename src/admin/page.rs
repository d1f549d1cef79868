//! Lists by cursor: stable while rows come and go, because a cursor names the last row that was seen and
//! not a number of rows.

use data_encoding::BASE64URL_NOPAD;

/// The rows of a page when nobody says otherwise.
pub const DEFAULT_LIMIT: u32 = 50;
/// The most rows of a page.
pub const MAX_LIMIT: u32 = 200;
const MAX_CURSOR_BYTES: usize = 512;

/// Why a page cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not from 1 to [`MAX_LIMIT`].
    #[error("limit must be from 1 to {MAX_LIMIT}")]
    Limit,
    /// No answer of this list gave it.
    #[error("the cursor is not one that this list gave; begin without one")]
    Cursor,
}

/// Which rows of a list.
#[derive(Debug, Clone)]
pub struct Page {
    list: &'static str,
    limit: usize,
    after: Option<Vec<u8>>,
}

/// Some rows of a list.
#[derive(Debug)]
pub struct Paged<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next ones begin; `None` when these were the last.
    pub next_cursor: Option<String>,
}

impl Page {
    /// Checks what a client asks of the list with this name.
    ///
    /// # Errors
    /// When the limit is out of bounds, or the cursor is of another list or nonsense.
    pub fn parse(list: &'static str, limit: Option<u32>, cursor: Option<&str>) -> Result<Self, PageError> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(PageError::Limit);
        }
        let after = match cursor {
            Some(text) if text.len() <= MAX_CURSOR_BYTES => {
                let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| PageError::Cursor)?;
                let position = bytes.strip_prefix(list.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0"));
                Some(position.ok_or(PageError::Cursor)?.to_vec())
            }
            Some(_) => return Err(PageError::Cursor),
            None => None,
        };
        Ok(Self { list, limit: limit as usize, after })
    }

    /// How many rows to read: one more than are shown, to see whether there are more.
    #[must_use]
    pub fn rows_to_read(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The position of the last row that was seen.
    #[must_use]
    pub fn after(&self) -> Option<&[u8]> {
        self.after.as_deref()
    }

    /// The page of rows that were read; `position` names a row's place in the order.
    #[must_use]
    pub fn cut<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> Vec<u8>) -> Paged<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| {
            let mut bytes = self.list.as_bytes().to_vec();
            bytes.push(0);
            bytes.extend(position(last));
            BASE64URL_NOPAD.encode(&bytes)
        });
        Paged { items: rows, next_cursor }
    }
}

impl<T> Paged<T> {
    /// The same rows in another form.
    #[must_use]
    pub fn map<U>(self, form: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(form).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_where_the_page_ended_and_fits_no_other_list() {
        let page = Page::parse("letters", Some(2), None).unwrap();
        let cut = page.cut(vec![b'a', b'b', b'c'], |letter| vec![*letter]);
        assert_eq!(cut.items, [b'a', b'b']);
        let cursor = cut.next_cursor.unwrap();
        let next = Page::parse("letters", Some(2), Some(&cursor)).unwrap();
        assert_eq!(next.after(), Some(&b"b"[..]));
        assert!(next.cut(vec![b'c'], |letter| vec![*letter]).next_cursor.is_none());
        for (list, wrong) in [("numbers", cursor.as_str()), ("letters", "!"), ("letters", ""), ("letters", "YQ")] {
            assert_eq!(Page::parse(list, None, Some(wrong)).unwrap_err(), PageError::Cursor, "{wrong}");
        }
    }

    #[test]
    fn limits_out_of_bounds_are_refused() {
        for limit in [0, 201, u32::MAX] {
            assert_eq!(Page::parse("x", Some(limit), None).unwrap_err(), PageError::Limit);
        }
    }
}
