package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
)

// RestartNeeded says what a file asks for that only a restart brings about, as against the file that a process began with.
func RestartNeeded(began, now *Config) (what []string) {
	names := func(list []Interface) (out []string) {
		for _, x := range list {
			out = append(out, x.Name)
		}
		return out
	}
	for _, x := range now.Interfaces {
		i := slices.IndexFunc(began.Interfaces, func(y Interface) bool { return y.Name == x.Name })
		switch {
		case i < 0:
			what = append(what, fmt.Sprintf("interface %s is new", x.Name))
		case cmp.Or(x.MAC, "auto") != cmp.Or(began.Interfaces[i].MAC, "auto"):
			what = append(what, fmt.Sprintf("interface %s: mac is %s", x.Name, cmp.Or(x.MAC, "auto")))
		case !slices.Equal(x.Gateways, began.Interfaces[i].Gateways):
			what = append(what, fmt.Sprintf("interface %s: gateways", x.Name))
		}
	}
	for _, name := range names(began.Interfaces) {
		if !slices.Contains(names(now.Interfaces), name) {
			what = append(what, fmt.Sprintf("interface %s is gone", name))
		}
	}
	for _, x := range []struct {
		key string
		a   any
		b   any
	}{
		{"probes", began.ProbeAddresses, now.ProbeAddresses}, {"inner", began.InnerTraffic, now.InnerTraffic},
		{"packets", began.PacketPath, now.PacketPath}, {"limits", began.Limits, now.Limits},
	} {
		if !reflect.DeepEqual(x.a, x.b) {
			what = append(what, x.key)
		}
	}
	return what
}
