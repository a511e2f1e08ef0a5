//! The plain system calls: what each does, one file per family.
//!
//! The table in [`libipc::syscall`] makes the trait and the dispatcher; the methods are the
//! kernel's own, of the same names. Each checks everything first and then changes everything, and
//! nothing that a program passes makes one panic.

#![allow(
    clippy::too_many_arguments,
    reason = "a call has up to ten, as the table says"
)]

mod caps;
mod devices;
mod events;
mod spaces;
mod threads;

use crate::cap::Node;
use crate::kernel::{Kernel, Stop};
use crate::machine::Machine;
use crate::memory::{Object, Pool, Ref};
use crate::object::Thread;
use libipc::abi::{Access, Copies, Error, ForkFlags, Handle, Kind, Protection, SlotFlags};

libipc::syscalls!(libipc::syscall_handlers);

/// Makes [`Handlers`] of the kernel's methods. A method that is missing would call itself, which
/// the compiler refuses.
macro_rules! delegate {
    ($( $(#[doc = $doc:literal])* $number:literal => $name:ident($($arg:ident : $ty:ty),*) -> $ret:ty; )*) => {
        #[deny(unconditional_recursion)]
        impl<M: Machine> Handlers for Kernel<M> {
            type Stop = Stop;
            type Caller = Ref<Thread>;

            #[inline(always)]
            fn argument(&self, caller: Ref<Thread>, place: usize) -> u64 {
                self.memory.get(caller).context.arguments()[place]
            }

            #[inline(always)]
            fn set_results(&mut self, caller: Ref<Thread>, values: [u64; 2]) {
                self.memory.get_mut(caller).context.set_results(0, values);
            }

            $(
                #[inline(always)]
                fn $name(&mut self, $($arg: $ty),*) -> Result<$ret, Stop> {
                    Kernel::<M>::$name(self, $($arg),*)
                }
            )*
        }
    };
}
libipc::syscalls!(delegate);

impl<M: Machine> Kernel<M> {
    /// A pool that pays.
    fn payer(&self, pool: Handle) -> Result<Ref<Pool>, Error> {
        let pool: Ref<Pool> = self.object(pool, Kind::Pool, Access::CHARGE)?;
        if self.memory.get(pool).has_ended() {
            return Err(Error::Gone);
        }
        Ok(pool)
    }

    /// A pool that pays, and the rights on a pool or thread that is made with this capability to it:
    /// all but those that only a capability with LABEL passes on.
    fn payer_and_rights(&self, pool: Handle) -> Result<(Ref<Pool>, Access), Error> {
        let found = self.find_here(pool)?;
        let pool: Ref<Pool> = found.object(Kind::Pool, Access::CHARGE)?;
        if self.memory.get(pool).has_ended() {
            return Err(Error::Gone);
        }
        let rights = match Access::from_bits_retain(found.access).contains(Access::LABEL) {
            true => Access::all(),
            false => Access::all().difference(Access::LABEL),
        };
        Ok((pool, rights))
    }

    /// Gives the caller the first capability to a new object, one hold on which is the node's.
    fn give_new<T: Object>(
        &mut self,
        pool: Ref<Pool>,
        kind: Kind,
        object: Ref<T>,
    ) -> Result<Handle, Stop> {
        self.give_new_with(pool, kind, object, Access::all())
    }

    /// The same with fewer rights than all.
    fn give_new_with<T: Object>(
        &mut self,
        pool: Ref<Pool>,
        kind: Kind,
        object: Ref<T>,
        access: Access,
    ) -> Result<Handle, Stop> {
        match self.memory.node_create(pool, kind, object.to_bits()) {
            Ok(node) => Ok(self.give(node, access.bits())?),
            Err(error) => {
                self.note_garbage();
                self.drop_object(kind, object.to_bits());
                Err(error.into())
            }
        }
    }

    /// Gives the caller a capability to a new object that is part of another one's grant.
    fn give_part<T: Object>(
        &mut self,
        parent: Ref<Node>,
        pool: Ref<Pool>,
        kind: Kind,
        object: Ref<T>,
        access: u32,
    ) -> Result<Handle, Stop> {
        let node = self
            .memory
            .node_derive(parent, pool, kind, object.to_bits(), 0);
        match node {
            Ok(node) => Ok(self.give(node, access)?),
            Err(error) => {
                self.note_garbage();
                self.drop_object(kind, object.to_bits());
                Err(error.into())
            }
        }
    }

    /// Does nothing. (The door does not even come here.)
    fn null(&mut self) -> Result<(), Stop> {
        Ok(())
    }

    fn clock(&mut self) -> Result<u64, Stop> {
        Ok(self.memory.machine().now_ns())
    }

    /// How far the caller's call has come, if it is being made again.
    fn mark(&mut self) -> Option<u64> {
        let thread = self.caller();
        let entry = self.memory.get_mut(thread);
        let (operation, argument, mark) = entry.progress.take()?;
        let same =
            (operation, argument) == (entry.context.operation(), entry.context.arguments()[0]);
        same.then_some(mark)
    }

    /// The caller's call has come this far, and is to be made again.
    fn again(&mut self, mark: u64) -> Stop {
        let thread = self.caller();
        let entry = self.memory.get_mut(thread);
        let (operation, argument) = (entry.context.operation(), entry.context.arguments()[0]);
        entry.progress = Some((operation, argument, mark));
        Stop::Again
    }
}

/// A slot number.
fn slot_number(index: u64) -> Result<u32, Error> {
    u32::try_from(index).map_err(|_| Error::InvalidArgument)
}

/// A truth value.
fn truth(word: u64) -> Result<bool, Error> {
    match word {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::InvalidArgument),
    }
}
