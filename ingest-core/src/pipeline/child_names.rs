//! Which child of a gateway a name means, for gateways that do not know the ids of their children.
//!
//! A child is meant by its serial number, which no other device of its organisation has, or else by its name, where no other child
//! of the gateway has that one too.

use std::collections::HashMap;

use uuid::Uuid;

type ByName = HashMap<Box<str>, Vec<Named>, foldhash::fast::RandomState>;

/// The children of each gateway, by their names and serial numbers.
#[derive(Debug, Default)]
pub struct ChildNames(HashMap<Uuid, ByName, foldhash::fast::RandomState>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    child: Uuid,
    is_serial_number: bool,
}

/// What a child is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalledAs<'a> {
    pub child: Uuid,
    pub gateway: Uuid,
    pub name: Option<&'a str>,
    pub serial_number: Option<&'a str>,
}

impl CalledAs<'_> {
    fn names(&self) -> impl Iterator<Item = (&str, Named)> {
        let named = |is_serial_number| Named {
            child: self.child,
            is_serial_number,
        };
        let name = self.name.map(|name| (name, named(false)));
        let serial_number = self.serial_number.map(|number| (number, named(true)));
        name.into_iter().chain(serial_number)
    }
}

impl ChildNames {
    /// The child that is meant; none where nobody is, or several are.
    #[must_use]
    pub fn child(&self, gateway: Uuid, name: &str) -> Option<Uuid> {
        let named = self.0.get(&gateway)?.get(name)?;
        let by_number = named.iter().find(|one| one.is_serial_number);
        match (by_number, named.as_slice()) {
            (Some(one), _) | (None, [one]) => Some(one.child),
            (None, _) => None,
        }
    }

    pub fn add(&mut self, child: &CalledAs<'_>) {
        for (name, named) in child.names() {
            let by_name = self.0.entry(child.gateway).or_default();
            let known = by_name.entry(name.into()).or_default();
            if !known.contains(&named) {
                known.push(named);
            }
        }
    }

    pub fn remove(&mut self, child: &CalledAs<'_>) {
        let Some(by_name) = self.0.get_mut(&child.gateway) else {
            return;
        };
        for (name, named) in child.names() {
            if let Some(known) = by_name.get_mut(name) {
                known.retain(|one| *one != named);
                if known.is_empty() {
                    by_name.remove(name);
                }
            }
        }
        if by_name.is_empty() {
            self.0.remove(&child.gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Uuid = Uuid::from_u128(9);

    fn called<'a>(child: u128, name: &'a str, serial_number: Option<&'a str>) -> CalledAs<'a> {
        CalledAs {
            child: Uuid::from_u128(child),
            gateway: GATEWAY,
            name: Some(name),
            serial_number,
        }
    }

    #[test]
    fn a_child_is_meant_by_its_number_or_else_by_a_name_that_it_has_alone() {
        let children = [
            called(1, "meter", Some("A-1")),
            called(2, "meter", Some("A-2")),
            called(3, "A-2", None),
            called(4, "lamp", None),
        ];
        let mut names = ChildNames::default();
        for child in &children {
            names.add(child);
        }
        let child = |names: &ChildNames, name| names.child(GATEWAY, name).map(|id| id.as_u128());
        assert_eq!(child(&names, "A-1"), Some(1));
        assert_eq!(child(&names, "A-2"), Some(2));
        assert_eq!(child(&names, "lamp"), Some(4));
        assert_eq!(child(&names, "meter"), None);
        assert_eq!(child(&names, "door"), None);
        assert_eq!(names.child(Uuid::from_u128(8), "lamp"), None);
        names.remove(&called(1, "meter", Some("A-1")));
        assert_eq!(child(&names, "meter"), Some(2));
        for left in [
            called(2, "meter", Some("A-2")),
            called(3, "A-2", None),
            called(4, "lamp", None),
        ] {
            names.remove(&left);
        }
        assert!(names.0.is_empty());
    }
}
