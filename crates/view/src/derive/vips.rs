//! Virtual addresses of MeshServices, own and copied ones (xds.md §5.4).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use graticule_model::kinds::mesh_service::{MeshService, Vip};
use graticule_model::{Key, Kind, Status};

use super::{DeriveState, Derived, Draft};

/// Who holds which address of the range, in all meshes.
pub(super) struct Vips {
    first: u32,
    last: u32,
    taken: BTreeMap<u32, Key>,
}

impl Vips {
    /// Reservations as the stored resources say. Where two services have the same address, the older one holds it.
    pub(super) fn of(state: &DeriveState<'_>) -> Vips {
        let host_bits = 32_u32.saturating_sub(u32::from(state.settings.vip_prefix_len));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let first = u32::from(state.settings.vip_network) & mask;
        let mut vips = Vips { first, last: first | !mask, taken: BTreeMap::new() };
        let mut holders = BTreeMap::new();
        for service in state.resources.all(Kind::MeshService) {
            let age = (service.meta.creation_time, service.key());
            for vip in service.status_of::<MeshService>().into_iter().flat_map(|status| &status.vips) {
                let Some(address) = vips.in_range(vip) else { continue };
                match holders.get(&address) {
                    Some(holder) if *holder <= age => {}
                    _ => drop(holders.insert(address, age.clone())),
                }
            }
        }
        vips.taken = holders.into_iter().map(|(address, (_, key))| (address, key)).collect();
        vips
    }

    fn in_range(&self, vip: &Vip) -> Option<u32> {
        let address = u32::from(vip.ip.parse::<Ipv4Addr>().ok()?);
        (self.first..=self.last).contains(&address).then_some(address)
    }

    /// Drops addresses that another service holds, and gives a service without address the next one.
    pub(super) fn assign(&mut self, service: &mut Draft, derived: &mut Derived) {
        let key = service.resource.key();
        let Status::MeshService(status) = &mut service.resource.status else { return };
        status
            .vips
            .retain(|vip| self.in_range(vip).is_none_or(|address| self.taken.get(&address) == Some(&key)));
        if !status.vips.is_empty() {
            return;
        }
        match self.next() {
            Some(address) => {
                status.vips.push(Vip { ip: Ipv4Addr::from(address).to_string() });
                self.taken.insert(address, key);
            }
            None => derived.problems.push((key, "no virtual address is left in the range".into())),
        }
    }

    /// Counts up, so that the address of a deleted service is not given to another one soon; when the end of the
    /// range was reached, the lowest free address.
    fn next(&self) -> Option<u32> {
        let Some((&highest, _)) = self.taken.last_key_value() else { return Some(self.first) };
        if highest < self.last {
            return Some(highest + 1);
        }
        let mut candidate = self.first;
        for &taken in self.taken.keys() {
            if taken != candidate {
                return Some(candidate);
            }
            candidate = candidate.checked_add(1)?;
        }
        (candidate <= self.last).then_some(candidate)
    }
}
