package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"uvs/control/api"
	"uvs/control/sysctl"
	"uvs/service"
)

// at is the node of a value that was decoded: pointer points to it.
func (d *decoder) at(pointer any) *yaml.Node {
	if n := d.pos[pointer]; n != nil {
		return n
	}
	return &yaml.Node{Line: 1, Column: 1}
}

// given says that the file has the value that pointer points to.
func (d *decoder) given(pointer any) bool { return d.pos[pointer] != nil }

// validate finds what is wrong with values that are each well formed.
func (d *decoder) validate(c *Config) {
	d.validateHost(c)
	d.validateSettings(c)
	d.validateMarks(c)
	d.validateChecks(c.Checks, true)
	d.names("a template of a check", len(c.Checks), func(i int) *string { return &c.Checks[i].Name })
	d.names("a health policy", len(c.HealthPolicies), func(i int) *string { return &c.HealthPolicies[i].Name })
	d.names("a server group", len(c.ServerGroups), func(i int) *string { return &c.ServerGroups[i].Name })
	for i := range c.HealthPolicies {
		h := &c.HealthPolicies[i]
		if h.Name == "" {
			d.fail(d.at(h), "a health policy in healthPolicies has no name")
		}
		d.validateHealth(h)
	}
	for i := range c.ServerGroups {
		d.validateServers(c.ServerGroups[i].Servers)
	}
	for i := range c.Services {
		d.validateService(c, &c.Services[i])
	}
	d.expand(c, nil)
	if d.given(&c.Resolve) && !d.hasHostNames(c) {
		d.fail(d.at(&c.Resolve), "resolve is for host names, and no service or server has one")
	}
}

// names refuses names that are used twice, or are none.
func (d *decoder) names(what string, n int, name func(i int) *string) {
	first := map[string]*yaml.Node{}
	for i := range n {
		p := name(i)
		if *p == "" {
			continue
		}
		at := d.at(p)
		if err := api.CheckLabel(*p); err != nil {
			d.fail(at, "%s: %v", what, err)
			continue
		}
		if had := first[*p]; had != nil {
			d.fail(at, "%s with the name %q is there already, in line %d", what, *p, had.Line)
			continue
		}
		first[*p] = at
	}
}

func (d *decoder) validateHost(c *Config) {
	seen := map[string]bool{}
	gateways := 0
	for i := range c.Interfaces {
		x := &c.Interfaces[i]
		if x.Name != "" {
			switch at := d.at(&x.Name); {
			case len(x.Name) > 15 || strings.ContainsAny(x.Name, "/ \t,@") || x.Name == "." || x.Name == "..":
				d.fail(at, "%q is not the name of an interface", cut(x.Name))
			case seen[x.Name]:
				d.fail(at, "the interface %s is there twice", x.Name)
			}
			seen[x.Name] = true
		}
		for j := range x.Gateways {
			gateways++
			d.validateGateway(&x.Gateways[j])
		}
	}
	d.ownAddresses("probes", c.ProbeAddresses, false)
	d.ownAddresses("inner.addresses", c.InnerTraffic.Addresses, true)
	switch p := c.InnerTraffic.Policy; {
	case len(c.InnerTraffic.Addresses) > 0 && p != "masquerade":
		d.fail(d.at(&c.InnerTraffic.Addresses), "inner: addresses are for the policy masquerade")
	case p != "" && p != "drop" && gateways == 0:
		d.fail(d.at(&c.InnerTraffic.Policy), "inner: the policy %s is about what comes through a gateway, and no interface has gateways", p)
	}
	daemons := map[string]bool{}
	for i := range c.SyncDaemons {
		x := &c.SyncDaemons[i]
		if x.Role != "" && daemons[x.Role] {
			d.fail(d.at(&x.Role), "a sync daemon with the role %s is there already", x.Role)
		}
		daemons[x.Role] = true
		if x.Group != "" {
			if a, err := netip.ParseAddr(x.Group); err != nil || !a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
				d.fail(d.at(&x.Group), "group: %q is not a multicast address", cut(x.Group))
			}
		}
	}
}

func (d *decoder) validateGateway(text *string) {
	at := d.at(text)
	p, err := netip.ParsePrefix(*text)
	switch {
	case err != nil && strings.Contains(*text, "@"):
		d.fail(at, "gateways: %q names an interface; it is the one above, write the address alone", cut(*text))
	case err != nil && !strings.Contains(*text, "/"):
		d.fail(at, "gateways: %q has no prefix length, such as 10.0.0.1/24", cut(*text))
	case err != nil:
		d.fail(at, "gateways: %q is not an address with a prefix length, such as 10.0.0.1/24", cut(*text))
	case p.Addr().Is4In6() || p.Addr().Zone() != "":
		d.fail(at, "gateways: %v", plainAddress(p.Addr()))
	case p.Masked().Addr() == p.Addr() && p.Bits() < p.Addr().BitLen()-1:
		d.fail(at, "gateways: %v is the segment's own address, not a host's", p)
	}
}

// ownAddresses checks addresses that uvsd shall have.
func (d *decoder) ownAddresses(what string, list []string, perFamily bool) {
	families, seen := map[bool]bool{}, map[netip.Addr]bool{}
	for i := range list {
		at := d.at(&list[i])
		a, err := netip.ParseAddr(list[i])
		switch {
		case err != nil && strings.Contains(list[i], "/"):
			d.fail(at, "%s: %q has a prefix length; write the address alone", what, cut(list[i]))
			continue
		case err != nil:
			d.fail(at, "%s: %q is not an address", what, cut(list[i]))
			continue
		case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6():
			d.fail(at, "%s: %v is not an address that a host can have and others reach", what, a)
		case seen[a]:
			d.fail(at, "%s: %v is there twice", what, a)
		case perFamily && families[a.Is4()]:
			d.fail(at, "%s: %v is the second of its family", what, a)
		}
		seen[a], families[a.Is4()] = true, true
	}
}

func (d *decoder) validateSettings(c *Config) {
	scratch := service.DefaultSettings()
	names := map[string]string{} // in full
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		at := d.settings[name]
		s, err := findSetting(name)
		if err != nil {
			known := []string{}
			for _, k := range sysctl.All() {
				known = append(known, strings.TrimPrefix(k.Name, "net.ipv4.vs."))
			}
			d.fail(at, "there is no setting %q%s", cut(name), didYouMean(name, known, nil))
			continue
		}
		if other, twice := names[s.Name]; twice {
			d.fail(at, "the settings %q and %q are the same", other, name)
		}
		names[s.Name] = name
		if err := s.Set(&scratch, c.Settings[name]); err != nil {
			d.fail(at, "setting %s: %v", name, err)
		}
	}
	v := reflect.ValueOf(&c.Timeouts).Elem()
	for _, f := range fieldsOf(v.Type()) {
		p := v.FieldByIndex(f.index)
		if x := time.Duration(p.Int()); x%time.Second != 0 {
			d.fail(d.at(p.Addr().Interface()), "%s is in whole seconds, not %v", f.key, x)
		}
	}
}

// findSetting finds a setting by its name with or without what stands before the last dots.
func findSetting(name string) (*sysctl.Setting, error) {
	if !strings.ContainsAny(name, "./") {
		if s, err := sysctl.Find("vs." + name); err == nil {
			return s, nil
		}
		return sysctl.Find("uvs." + name)
	}
	return sysctl.Find(name)
}

func (d *decoder) validateMarks(c *Config) {
	seen := map[api.MarkRule]*yaml.Node{}
	for i := range c.Marks {
		m := &c.Marks[i]
		at := d.at(m)
		if d.broken(at) {
			continue
		}
		rule, err := m.rule()
		if err != nil {
			d.fail(at, "%v", err)
			continue
		}
		if m.Interface != "" && len(c.Interfaces) > 0 && !slices.ContainsFunc(c.Interfaces, func(x Interface) bool { return x.Name == m.Interface }) {
			d.fail(d.at(&m.Interface), "mark rule: uvsd is not attached to %s; add it to interfaces", cut(m.Interface))
		}
		rule.Mark = 0
		if had := seen[rule]; had != nil {
			d.fail(at, "mark rule: the rule in line %d has the same conditions, so this one could never decide", had.Line)
			continue
		}
		seen[rule] = at
	}
}

// rule is the rule as the API has it, in its plain form.
func (m *MarkRule) rule() (api.MarkRule, error) {
	r := api.MarkRule{Mark: m.Mark, Interface: m.Interface, Protocol: m.Protocol, SrcPorts: m.SourcePorts, DstPorts: m.DestinationPorts}
	var err error
	if r.Src, err = parseNetwork("src", m.Source); err != nil {
		return r, err
	}
	if r.Dst, err = parseNetwork("dst", m.Destination); err != nil {
		return r, err
	}
	if err := r.Check(); err != nil {
		return r, err
	}
	return r, nil
}

func parseNetwork(what, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if err := plainAddress(a); err != nil {
			return netip.Prefix{}, fmt.Errorf("%s: %v", what, err)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s: %q is neither a network such as 10.0.0.0/8 nor an address", what, cut(s))
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%s: %v has bits behind its prefix length; %v may be meant", what, p, p.Masked())
	}
	return p, nil
}

// validateHealth finds what is wrong with a health policy, and prepares it.
func (d *decoder) validateHealth(h *Health) {
	at := d.at(h)
	if d.broken(at) {
		return
	}
	policy, err := h.Spec()
	if err != nil {
		d.fail(culprit(at, err), "health: %v", err)
		return
	}
	h.policy = policy
}
