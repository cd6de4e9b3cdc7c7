//! Call sites as small numbers, so that a thread's slot in the gate can hold one in an atomic.
//!
//! A program has few call sites, and their number is bounded by its code: the table only grows.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::Location;

use parking_lot::RwLock;

use crate::error::Site;

#[derive(Default)]
struct Table {
    ids: HashMap<usize, u32>,
    sites: Vec<Site>,
}

static TABLE: RwLock<Option<Table>> = RwLock::new(None);

thread_local! {
    static LAST: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

#[inline]
pub(crate) fn id(site: Site) -> u32 {
    let address = std::ptr::from_ref(site).addr();
    let (last, id) = LAST.get();
    if last == address {
        return id;
    }
    let id = look_up(address, site);
    LAST.set((address, id));
    id
}

fn look_up(address: usize, site: Site) -> u32 {
    if let Some(&id) = TABLE
        .read()
        .as_ref()
        .and_then(|table| table.ids.get(&address))
    {
        return id;
    }
    let mut table = TABLE.write();
    let Table { ids, sites } = table.get_or_insert_default();
    *ids.entry(address).or_insert_with(|| {
        sites.push(site);
        u32::try_from(sites.len() - 1).unwrap_or(0)
    })
}

#[track_caller]
pub(crate) fn at(id: u32) -> Site {
    TABLE
        .read()
        .as_ref()
        .and_then(|table| table.sites.get(id as usize).copied())
        .unwrap_or_else(Location::caller)
}
