package config

import (
	"net/netip"
	"slices"
)

// HostNames are the names of services and servers that are to be resolved, each once, in alphabetical order.
func (f *File) HostNames() []string {
	seen := map[string]bool{}
	add := func(s string) {
		if _, isAddress, _ := ParseAddresses(s); s != "" && !isAddress {
			seen[s] = true
		}
	}
	servers := func(list []Server) {
		for i := range list {
			add(list[i].Address)
		}
	}
	for i := range f.Config.Services {
		for _, a := range f.Config.Services[i].Address {
			add(a)
		}
		servers(f.Config.Services[i].Servers)
	}
	for i := range f.Config.ServerGroups {
		servers(f.Config.ServerGroups[i].Servers)
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Slim lets go of what is needed to edit the file and to say where something in it stands, which is many times the file.
func (f *File) Slim() {
	f.data, f.root = nil, nil
	if f.dec != nil {
		f.dec.pos, f.dec.settings = nil, nil
	}
}

// State is what the file asks of a director. lookup gives the addresses of host names, of each as often as it occurs; a name
// without addresses and without an error is passed over. The error is Errors.
func (f *File) State(lookup Lookup) (*State, error) {
	if f.dec == nil {
		return new(State), nil
	}
	d := *f.dec
	d.errs = nil
	if lookup == nil {
		lookup = func(string) ([]netip.Addr, error) { return nil, nil }
	}
	s := d.expand(&f.Config, lookup)
	if len(d.errs) > 0 {
		return nil, sorted(d.errs)
	}
	return s, nil
}
