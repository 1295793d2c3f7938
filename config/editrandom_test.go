package config

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomFile has ranges, groups, shorthands, checks and policies, differently each time.
func randomFile(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	b.WriteString("checks: [{template: c, kind: tcp, fall: 3}]\npolicies: [{name: p, quorum: 2}]\n")
	fmt.Fprintf(&b, "groups: [{name: g, servers: [10.0.1.1, {address: 10.0.1.2, weight: %d}]}]\nservices:\n", r.IntN(3))
	for i := range 5 {
		if r.IntN(4) == 0 {
			continue
		}
		fmt.Fprintf(&b, "  # entry %d\n  - address: %s\n    port: %s\n    scheduler: %s\n    method: %s\n", i,
			pick(fmt.Sprintf("192.0.2.%d", 10*i+1), fmt.Sprintf("192.0.2.%d-192.0.2.%d", 10*i+1, 10*i+3)),
			pick("80", "[80, 443]", "80-82"), pick("rr", "wlc", "sh"), pick("dr", "nat", "tun"))
		for _, line := range []string{
			fmt.Sprintf("name: n%d", i), "persistence: 5m", "persistence: {timeout: 10m, netmask: 255.255.255.0}", "checks: c", "checks: [tcp, {kind: udp, request: ping}]",
			"health: p", "health: {reaction: quiesce}", "groups: g", "tunnel: {type: gre}",
		} {
			key, _, _ := strings.Cut(line, ":")
			entry := b.String()[strings.LastIndex(b.String(), "# entry"):]
			if r.IntN(3) == 0 && !strings.Contains(entry, "    "+key+":") && (key != "tunnel" || strings.Contains(entry, "method: tun")) {
				b.WriteString("    " + line + "\n")
			}
		}
		b.WriteString("    servers:\n")
		for j := range 3 {
			fmt.Fprintf(&b, "      - %s\n", pick(fmt.Sprintf("10.0.0.%d", 10*j+1), fmt.Sprintf("{address: 10.0.0.%d, weight: %d}", 10*j+1, r.IntN(3)),
				fmt.Sprintf("10.0.0.%d-10.0.0.%d", 10*j+1, 10*j+2), fmt.Sprintf("{name: s%d, address: 10.0.0.%d, upper: 5, checks: tcp}", j, 10*j+1)))
		}
	}
	if strings.HasSuffix(b.String(), "services:\n") {
		b.WriteString("  []\n")
	}
	b.WriteString("marks:\n")
	for _, i := range r.Perm(4)[:1+r.IntN(3)] {
		fmt.Fprintf(&b, "  - {mark: %d, dst: 10.0.%d.0/24} # rule %d\n", 1+i, i, i)
	}
	fmt.Fprintf(&b, "settings: {drop_entry: %d}\ntimeouts: {%s: %ds}\n", r.IntN(3), pick("tcp", "udp"), 10+r.IntN(3))
	return b.String()
}

// Whatever a file says, it can be edited to say what any director has. Edit itself makes sure that it does.
func TestAnyFileCanBeEditedToSayWhatThereIs(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 150 {
		from, to := randomFile(r), randomFile(r)
		f, err := Parse("uvs.yaml", []byte(from))
		if err != nil {
			t.Fatalf("%d: %v\n%s", i, err, from)
		}
		text, _, err := f.Edit(stateOf(t, to), nil)
		if err != nil {
			t.Fatalf("%d: %v\nfrom\n%s\nto\n%s", i, err, from, to)
		}
		if again, err := Parse("uvs.yaml", text); err != nil {
			t.Fatalf("%d: %v\n%s", i, err, again.data)
		}
	}
}
