//! eswitch
