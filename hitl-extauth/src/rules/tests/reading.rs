//! What an approval is bound to because a condition reads it, and names that are spelt otherwise.

use super::*;

#[test]
fn an_approval_is_bound_to_everything_that_a_condition_may_read() {
    let call = Call::of(&json!({}));
    let context =
        |when: &str| one(when).unwrap().context(&call.requester, Some("10.0.0.7"), &call.headers);
    for when in [
        "tool == 'x' && arguments.n == 1 && time.hour < 7 && route != server",
        "requester.name == 'x'",
        "requester['name'] == 'x' || requester.assurance == 'verified'",
        "['requester', 'groups'].exists(it, it == arguments.groups)",
    ] {
        assert_eq!(context(when), None, "{when}");
    }
    let groups = json!({"groups": ["web"]});
    for when in [
        "'dba' in requester.groups",
        "requester.name == 'x' || 'dba' in requester[\"groups\"]",
        "requester.name == 'x' && requester == {'name': 'x'}",
        "requester.name == 'x' && size(requester) == 3",
        "requester.name == 'x' && requester.size() == 3",
        "requester.name == 'x' && 'dba' in requester[arguments.x]",
        "requester.name == 'x' && 'dba' in requester['gro' + 'ups']",
        "requester.name == 'x' && ['groups'].exists(it, 'dba' in requester[it])",
        "requester.name == 'x' && requester.all(it, it != 'x')",
        "requester.name == 'x' && [requester].exists(it, 'dba' in it.groups)",
        "requester.name == 'x' && 'dba' in {'a': requester}.a.groups",
        "requester.name == 'x' && 'dba' in (true ? requester : requester).groups",
        "requester.name == 'x' && has(requester.groups)",
        "requester.name == 'x' && 'groups' in requester",
        "requester.name == 'x' && type(requester) == map",
    ] {
        assert_eq!(context(when), Some(groups.clone()), "{when}");
    }
    let address = json!({"address": "10.0.0.7"});
    for when in [
        "source.address == 'x'",
        "source['address'] == 'x'",
        "source == {'address': 'x'}",
        "size(source) == 1",
    ] {
        assert_eq!(context(when), Some(address.clone()), "{when}");
    }
    let headers = json!({"headers": {"x-env": "production", "x-many": ["a", "b"]}});
    for when in [
        "headers['x-env'] == 'x'",
        "'x-env' in headers",
        "size(headers) == 1",
        "headers[arguments.x] == 'x'",
        "headers.exists(it, headers[it] == 'x')",
    ] {
        assert_eq!(context(when), Some(headers.clone()), "{when}");
    }
}

#[test]
fn a_name_that_differs_in_case_from_one_that_a_condition_reads_keeps_it_from_being_evaluated() {
    for (when, arguments) in [
        ("arguments.version != 'v9'", json!({"Version": "v4"})),
        ("!has(arguments.version)", json!({"Version": "v4"})),
        ("!has(arguments.users)", json!({"u\u{17f}ers": 1})),
        ("!('version' in arguments)", json!({"VERSION": "v4"})),
        ("arguments[\"version\"] != 'v9'", json!({"version": "v3", "Version": "v9"})),
        ("!has(arguments.filter.id)", json!({"filter": {"ID": 7}})),
        ("!has(arguments.filter) || arguments.filter.id < 3", json!({"Filter": {"id": 7}})),
        ("!has(arguments.filter.kind)", json!({"filter": {"\u{212a}ind": 7}})),
        ("!['version'].exists(it, it in arguments)", json!({"Version": "v4"})),
        (
            "['version'].all(it, !(it in arguments) || arguments[it] == 'v3')",
            json!({"Version": "v4"}),
        ),
        ("!('ver' + 'sion' in arguments)", json!({"Version": "v4"})),
        ("arguments.all(it, it != 'version')", json!({"Version": "v4"})),
        ("!arguments.exists(it, it.startsWith('ver'))", json!({"Version": "v4"})),
        ("!arguments.contains('version')", json!({"Version": "v4"})),
        ("arguments != {'version': 'v4'}", json!({"Version": "v4"})),
        ("arguments.filter != {'id': 7}", json!({"filter": {"Id": 7}})),
        ("arguments.items.all(it, !has(it.id))", json!({"items": [{"ID": 7}]})),
        ("arguments.items.all(it, it != {'id': 7})", json!({"items": [{"ID": 7}]})),
        ("!has(arguments.items[0].id)", json!({"items": [{"ID": 7}]})),
        ("[arguments].all(it, !has(it.version))", json!({"Version": "v4"})),
        ("!has({'a': arguments}.a.version)", json!({"Version": "v4"})),
        ("!has((tool == 'x' ? arguments : arguments).version)", json!({"Version": "v4"})),
        ("!has(arguments.dryRun)", json!({"dryrun": true})),
    ] {
        let said = holds(when, &arguments);
        let why = said.expect_err(when);
        assert!(why.contains("ignores case"), "{when}: {why}");
        let lone = Lone::parse(when);
        if let Ok(lone) = lone {
            lone.holds(&Call::of(&arguments).facts()).expect_err(when);
        }
    }
}

#[test]
fn names_that_a_condition_does_not_read_may_be_spelt_in_any_way() {
    for (when, arguments) in [
        (
            "arguments.version == 'v3'",
            json!({"version": "v3", "dryRun": true, "deep": {"Version": 1}}),
        ),
        ("arguments.version == 'deep'", json!({"version": "deep", "DEEP": true})),
        ("arguments.version in ['deep']", json!({"version": "deep", "DEEP": true})),
        (
            "arguments.all(it, it in ['version', 'dryRun'])",
            json!({"version": "v3", "dryRun": true}),
        ),
        ("size(arguments) == 1", json!({"dryRun": true})),
        ("arguments.items.all(it, it.id > 3)", json!({"items": [{"id": 7, "createdAt": 1}]})),
        ("arguments == {'dryRun': true}", json!({"dryRun": true})),
        // The rest is enough for an answer.
        ("tool != 'x' || arguments.version == 'v3'", json!({"Version": "v4"})),
        ("tool != 'x' || arguments.all(it, it != 'version')", json!({"Version": "v4"})),
    ] {
        assert_eq!(holds(when, &arguments), Ok(true), "{when}");
    }
    assert_eq!(
        holds("tool == 'x' && has(arguments.version)", &json!({"Version": "v4"})),
        Ok(false)
    );
}

#[test]
fn a_caller_cannot_make_the_comparison_of_names_work_for_long() {
    let begun = Instant::now();
    let object: Map<_, _> = (0..200_000).map(|n| (format!("Key{n}"), json!({"Key": n}))).collect();
    let many = json!({"a": object, "A": 1});
    let when = (0..100).map(|n| format!("arguments.a.b{n} == arguments.a.c{n}"));
    let when = when.collect::<Vec<_>>().join(" || ");
    assert!(holds(&when, &many).is_err());
    let why = holds("arguments.a == {'x': 1}", &json!({"a": object})).unwrap_err();
    assert!(why.contains("ignores case") || why.contains("too many"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
