package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
)

// specNode is a list of checks.
func specNode(list []api.CheckSpec) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, c := range list {
		n.Content = append(n.Content, objectNode(c))
	}
	return n
}

// objectNode is a check or a policy: the kind first, then the other keys in alphabetical order.
func objectNode(of map[string]any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	keys := make([]string, 0, len(of))
	for k := range of {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if (a == "kind") != (b == "kind") {
			return map[bool]int{true: -1, false: 1}[a == "kind"]
		}
		return strings.Compare(a, b)
	})
	for _, k := range keys {
		n.Content = append(n.Content, scalarNode(k), anyNode(of[k]))
	}
	return n
}

func anyNode(x any) *yaml.Node {
	switch x := x.(type) {
	case map[string]any:
		return objectNode(x)
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, v := range x {
			n.Content = append(n.Content, anyNode(v))
		}
		return n
	case string:
		if isDigits(strings.TrimPrefix(x, "-")) || x == "true" || x == "false" {
			return scalarNode(x) // the option's type says what it is
		}
		return stringNode(x)
	case float64:
		return scalarNode(strings.TrimSuffix(fmt.Sprintf("%f", x), ".000000"))
	}
	return scalarNode(fmt.Sprint(x))
}

// putHealth sets the keys of health checks and of the policy where they differ.
func putHealth(n *yaml.Node, was, now []api.CheckSpec, policyWas, policyNow api.PolicySpec) {
	if !sameChecks(was, now) {
		if len(now) == 0 {
			drop(n, "checks")
		} else {
			put(n, "checks", specNode(now))
		}
	}
	if !sameObject(policyWas, policyNow) {
		if len(policyNow) == 0 {
			drop(n, "health")
		} else {
			put(n, "health", objectNode(policyNow))
		}
	}
}

// entryNode is the entry of one service with all it has.
func entryNode(v *ServiceState) (*yaml.Node, error) {
	n, err := encode(reflect.ValueOf(entryOf(v)), "")
	if err != nil {
		return nil, err
	}
	putHealth(n, nil, v.Checks, nil, v.Policy)
	if list := lookup(n, "servers"); list != nil {
		for i := range v.Servers {
			putHealth(list.Content[i], nil, v.Servers[i].Checks, nil, nil)
		}
	}
	return n, nil
}
