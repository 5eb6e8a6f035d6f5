//! Within v1 the surface only grows: everything in `baseline/fanfare.v1.bin`, the surface of the
//! last release, is still there, under the same name, number, type and label.
//!
//! With a release, the baseline becomes what `src/gen/fanfare.v1.bin` is then.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

const BASELINE: &[u8] = include_bytes!("../baseline/fanfare.v1.bin");

/// Everything a client can depend on: its path, and what it is.
type Surface = BTreeMap<String, String>;

#[test]
fn nothing_of_the_last_release_is_gone_or_changed() {
    let broken = broken(
        &surface(BASELINE),
        &surface(fanfare_proto::FILE_DESCRIPTOR_SET),
    );
    assert!(
        broken.is_empty(),
        "clients of v1 break:\n{}",
        broken.join("\n")
    );
}

#[test]
fn a_change_would_be_noticed() {
    let released = surface(BASELINE);
    for path in [
        "fanfare.v1.Event.id",
        "fanfare.v1.EventService.Publish",
        "fanfare.v1.DeliveryState.DELIVERY_STATE_PARKED",
        "fanfare.v1.Event.payload",
    ] {
        assert!(released.contains_key(path), "{path}");
        let mut gone = released.clone();
        gone.remove(path);
        assert_eq!(broken(&released, &gone).len(), 1);
        let mut changed = released.clone();
        changed.insert(path.into(), "something else".into());
        assert_eq!(broken(&released, &changed).len(), 1);
    }
    let mut grown = released.clone();
    grown.insert("fanfare.v1.Event.new".into(), "12".into());
    assert!(broken(&released, &grown).is_empty());
}

fn broken(released: &Surface, now: &Surface) -> Vec<String> {
    released
        .iter()
        .filter(|(path, what)| now.get(*path) != Some(what))
        .map(|(path, what)| format!("{path} was {what}, is {:?}", now.get(path)))
        .collect()
}

fn surface(descriptors: &[u8]) -> Surface {
    let set = FileDescriptorSet::decode(descriptors).expect("encoded by this crate");
    let mut surface = Surface::new();
    for file in &set.file {
        let package = file.package();
        if !package.starts_with("fanfare.") {
            continue;
        }
        for message in &file.message_type {
            add_message(&mut surface, package, message);
        }
        for one in &file.enum_type {
            add_enum(&mut surface, package, one);
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("{package}.{}.{}", service.name(), method.name());
                let what = format!(
                    "rpc {} {} -> {} {}",
                    method.client_streaming(),
                    method.input_type(),
                    method.server_streaming(),
                    method.output_type()
                );
                surface.insert(path, what);
            }
        }
    }
    surface
}

fn add_message(surface: &mut Surface, within: &str, message: &DescriptorProto) {
    let path = format!("{within}.{}", message.name());
    for field in &message.field {
        let oneof = field
            .oneof_index
            .and_then(|i| message.oneof_decl.get(usize::try_from(i).ok()?));
        let what = format!(
            "field {} {:?} {:?} {} oneof {:?} optional {}",
            field.number(),
            field.r#type(),
            field.label(),
            field.type_name(),
            oneof.map(|o| o.name().to_owned()),
            field.proto3_optional(),
        );
        surface.insert(format!("{path}.{}", field.name()), what);
    }
    for oneof in &message.oneof_decl {
        surface.insert(format!("{path}.{}", oneof.name()), "oneof".into());
    }
    for nested in &message.nested_type {
        add_message(surface, &path, nested);
    }
    for one in &message.enum_type {
        add_enum(surface, &path, one);
    }
    surface.insert(path, "message".into());
}

fn add_enum(surface: &mut Surface, within: &str, one: &EnumDescriptorProto) {
    let path = format!("{within}.{}", one.name());
    for value in &one.value {
        let what = format!("value {}", value.number());
        surface.insert(format!("{path}.{}", value.name()), what);
    }
    surface.insert(path, "enum".into());
}
