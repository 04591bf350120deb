pub mod event;
pub mod frame;
pub mod journal;
