//! The peer for messages: an actor around a hash map, and nothing else.
//!
//! It does the least that an actor can do for locks: each is exclusive, and who cannot have it is told
//! so. Nobody waits in it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message};
use lockkeeper::Object;

/// As the mailbox of the table it is compared with.
const MAILBOX: usize = 1024;

#[derive(Default)]
pub struct BareActor {
    owners: HashMap<Object, u64>,
}

/// Takes the object; false if it belongs to someone else.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Take {
    pub owner: u64,
    pub object: Object,
}

/// Gives the object back; false if it was not the owner's.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Give {
    pub owner: u64,
    pub object: Object,
}

/// Takes all of the objects, or none of them.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct TakeMany {
    pub owner: u64,
    pub objects: Vec<Object>,
}

/// Gives the objects back; false if one of them was not the owner's.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct GiveMany {
    pub owner: u64,
    pub objects: Vec<Object>,
}

impl BareActor {
    /// Starts it on a thread of its own.
    pub fn begin() -> Addr<Self> {
        Self::start_in_arbiter(&Arbiter::new().handle(), |_| Self::default())
    }

    fn take(&mut self, owner: u64, object: Object) -> bool {
        match self.owners.entry(object) {
            Entry::Vacant(place) => {
                place.insert(owner);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn give(&mut self, owner: u64, object: Object) -> bool {
        match self.owners.entry(object) {
            Entry::Occupied(place) if *place.get() == owner => {
                place.remove();
                true
            }
            _ => false,
        }
    }
}

impl Actor for BareActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Take> for BareActor {
    type Result = bool;

    fn handle(&mut self, take: Take, _: &mut Self::Context) -> bool {
        self.take(take.owner, take.object)
    }
}

impl Handler<Give> for BareActor {
    type Result = bool;

    fn handle(&mut self, give: Give, _: &mut Self::Context) -> bool {
        self.give(give.owner, give.object)
    }
}

impl Handler<TakeMany> for BareActor {
    type Result = bool;

    fn handle(&mut self, many: TakeMany, _: &mut Self::Context) -> bool {
        for (at, object) in many.objects.iter().enumerate() {
            if !self.take(many.owner, object.clone()) {
                for taken in many.objects.into_iter().take(at) {
                    self.give(many.owner, taken);
                }
                return false;
            }
        }
        true
    }
}

impl Handler<GiveMany> for BareActor {
    type Result = bool;

    fn handle(&mut self, many: GiveMany, _: &mut Self::Context) -> bool {
        let mut all = true;
        for object in many.objects {
            all &= self.give(many.owner, object);
        }
        all
    }
}
