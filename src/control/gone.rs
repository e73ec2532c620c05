//! How sessions end.

/// Why an established session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It said goodbye.
    Goodbye,
    /// Its process ended, or at least its end of the connection, where the kernel does not tell the two apart.
    Died,
    /// It closed its end of the connection, and lives.
    HungUp,
    /// It has not read for so long that this node had to forget what it had to say. It lives, and can come
    /// back when it reads again.
    Unread,
    /// This node cut it off.
    Cut(String),
}

impl Gone {
    /// Whether the peer may go on as if nothing were: what it writes waits for nobody here any more.
    pub fn may_live(&self) -> bool {
        matches!(self, Gone::HungUp | Gone::Unread)
    }
}
