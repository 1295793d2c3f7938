package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"uvs/control/api"
	"uvs/packet"
	"uvs/service"
)

// rule makes a rule of what it gives and its destination, "" for none.
func rule(mark uint32, dst string) *api.MarkRule {
	r := &api.MarkRule{Mark: mark}
	if dst != "" {
		r.Dst = netip.MustParsePrefix(dst)
	}
	return r
}

func addRule(r *api.MarkRule, position int) api.Op {
	return api.Op{Kind: api.AddMarkRule, MarkRule: r, Position: position}
}

func deleteRule(r *api.MarkRule) api.Op { return api.Op{Kind: api.DeleteMarkRule, MarkRule: r} }

// ops applies operations as one atomic change.
func (f *fixture) apply(ops ...api.Op) error {
	f.t.Helper()
	for i := range ops {
		if err := ops[i].Check(); err != nil {
			f.t.Fatal(err)
		}
	}
	reply, err := f.Change(f.t.Context(), &api.ChangeRequest{Ops: ops, OnError: api.Atomic})
	if err != nil {
		f.t.Fatal(err)
	}
	return reply.Err()
}

func (f *fixture) wantMarks(situation string, want ...string) {
	f.t.Helper()
	list, err := f.Marks(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	got := []string{}
	for _, r := range list {
		got = append(got, r.String())
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s: the mark rules are %q, want %q", situation, got, want)
	}
}

func TestMarkRulesReachThePacketPathInOrder(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Interfaces = []string{"eth0", "eth1"} })
	f.must("-A -f 1 -s rr", "-A -f 2 -s rr")
	before := f.Table()
	web := rule(1, "192.0.2.1/32")
	web.Protocol, web.DstPorts, web.Interface = api.TCP, api.PortRange{First: 80, Last: 80}, "eth1"
	if err := f.apply(addRule(rule(2, "192.0.2.0/24"), 0), addRule(web, 1)); err != nil {
		t.Fatal(err)
	}
	f.wantMarks("two rules", "1 --interface eth1 --dst 192.0.2.1 --proto tcp --dport 80", "2 --dst 192.0.2.0/24")
	flow := &packet.Flow{
		Src: packet.AddrFrom4(1 << 24), SrcPort: 4000, Dst: packet.AddrFrom(netip.MustParseAddr("192.0.2.1")), DstPort: 80,
		Proto: packet.ProtoTCP,
	}
	table := f.Table()
	if got := []uint32{table.Mark(flow, 0), table.Mark(flow, 1), before.Mark(flow, 1)}; !slices.Equal(got, []uint32{2, 1, 0}) {
		t.Errorf("marks by eth0, eth1 and the table before = %d, want 2 1 0", got)
	}
	if vs := table.Match(flow, 1); vs == nil || vs.Mark != 1 || !table.IsVIP(flow.Dst) {
		t.Errorf("Match = %v, IsVIP = %v, want the service of mark 1 and its host", vs, table.IsVIP(flow.Dst))
	}
	f.must("-C")
	f.wantMarks("after -C", "1 --interface eth1 --dst 192.0.2.1 --proto tcp --dport 80", "2 --dst 192.0.2.0/24")
	if f.Table().IsVIP(flow.Dst) {
		t.Error("the host of a rule is ours though its service is gone")
	}
	if err := f.apply(deleteRule(web), deleteRule(rule(2, "192.0.2.77/24"))); err != nil {
		t.Fatal(err)
	}
	f.wantMarks("after their removal")
	if f.Table().Marks() != nil {
		t.Error("a table without rules has a classifier")
	}
}

func TestMarkRulesThatAreRefused(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Interfaces = []string{"eth0"} })
	all := rule(3, "")
	all.SrcPorts = api.PortRange{First: 0, Last: 65535}
	if err := f.apply(addRule(rule(1, "10.0.0.0/8"), 0), addRule(all, 0)); err != nil {
		t.Fatal(err)
	}
	elsewhere := rule(1, "")
	elsewhere.Interface = "eth7"
	for _, c := range []struct {
		situation string
		ops       []api.Op
		want      api.Code
	}{
		{"the same", []api.Op{addRule(rule(1, "10.0.0.0/8"), 0)}, api.MarkExists},
		{"the same with another mark", []api.Op{addRule(rule(2, "10.9.9.9/8"), 1)}, api.MarkExists},
		{"every packet again", []api.Op{addRule(rule(4, ""), 0)}, api.MarkExists},
		{"twice in one change", []api.Op{addRule(rule(1, "11.0.0.0/8"), 0), addRule(rule(1, "11.0.0.0/8"), 0)}, api.MarkExists},
		{"an interface that isn't ours", []api.Op{addRule(elsewhere, 0)}, api.NoDevice},
		{"behind the end", []api.Op{addRule(rule(1, "11.0.0.0/8"), 4)}, api.OutOfRange},
		{"none such", []api.Op{deleteRule(rule(1, "11.0.0.0/8"))}, api.MarkNotFound},
		{"another mark", []api.Op{deleteRule(rule(2, "10.0.0.0/8"))}, api.MarkNotFound},
		{"deleted twice", []api.Op{deleteRule(rule(1, "10.0.0.0/8")), deleteRule(rule(1, "10.0.0.0/8"))}, api.MarkNotFound},
	} {
		if err := f.apply(c.ops...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.situation, err, c.want)
		}
	}
	f.wantMarks("after refusals", "1 --dst 10.0.0.0/8", "3")
	if err := f.apply(addRule(rule(1, "11.0.0.0/8"), 0), deleteRule(rule(1, "10.0.0.0/8")), addRule(rule(9, "10.0.0.0/8"), 3)); err != nil {
		t.Fatal(err)
	}
	f.wantMarks("a rule with another mark in its place", "3", "1 --dst 11.0.0.0/8", "9 --dst 10.0.0.0/8")
}

func TestAsManyMarkRulesAsThereMayBe(t *testing.T) {
	f := newFixture(t)
	var ops []api.Op
	for i := range service.MaxMarkRules {
		ops = append(ops, addRule(rule(uint32(i+1), fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255)), 0))
	}
	if err := f.apply(ops...); err != nil {
		t.Fatal(err)
	}
	if err := f.apply(addRule(rule(1, "11.0.0.0/8"), 0)); !errors.Is(err, api.NoMemory) {
		t.Errorf("one more: %v, want %v", err, api.NoMemory)
	}
}
