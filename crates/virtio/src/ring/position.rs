//! This module calculates with positions in a packed ring, as vhost and event suppression areas
//! write them: an index in bits 0 to 14, the wrap counter in bit 15. In a split ring a position is
//! the index alone, which runs over all 16 bits.

/// A place in a packed ring.
pub(super) type Position = u16;

/// The wrap counter.
pub(super) const WRAP: Position = 1 << 15;

/// Returns the index of the descriptor at this place.
#[inline]
pub(super) fn index(position: Position) -> u16 {
    position & !WRAP
}

/// Returns the place `count` descriptors on, at most a lap.
#[inline]
pub(super) fn advance(position: Position, count: u16, size: u16) -> Position {
    let next = index(position) + count;
    if next < size { position & WRAP | next } else { !position & WRAP | (next - size) }
}

/// Returns the place `count` descriptors back, at most a lap.
#[inline]
pub(super) fn retreat(position: Position, count: u16, size: u16) -> Position {
    match index(position).checked_sub(count) {
        Some(index) => position & WRAP | index,
        None => !position & WRAP | (index(position) + size).saturating_sub(count),
    }
}

/// Returns how many descriptors `to` is ahead of `from`: 0 to a lap.
#[inline]
pub(super) fn distance(from: Position, to: Position, size: u16) -> u16 {
    let lap = if (from ^ to) & WRAP == 0 { 0 } else { size };
    (index(to) + lap).wrapping_sub(index(from))
}
