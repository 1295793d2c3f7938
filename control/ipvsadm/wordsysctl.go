package ipvsadm

import (
	"fmt"
	"strings"

	"uvs/control/api"
)

// sysctl is the word sysctl: the director's settings, in sysctl(8)'s language.
func (r *run) sysctl(args []string) error {
	var names []string
	var values []api.Setting
	all, asJSON, bare := false, false, false
	for _, a := range args {
		name, value, assigned := strings.Cut(a, "=")
		switch {
		case a == "-a" || a == "--all":
			all = true
		case a == "-n" || a == "--values":
			bare = true
		case a == "-w" || a == "--write": // goes without saying
		case a == "--json":
			asJSON = true
		case strings.HasPrefix(a, "-"):
			return r.complain("sysctl", "unexpected argument %s", a)
		default:
			name = strings.TrimSpace(name)
			names = append(names, name)
			if assigned {
				values = append(values, api.Setting{Name: name, Value: strings.TrimSpace(value)})
			}
		}
	}
	if all != (len(names) == 0) {
		return r.complain("sysctl", "name settings to print, settings to set as NAME=VALUE, or -a for all")
	}
	if len(values) > 0 {
		set, err := r.Backend.Set(r.ctx, values)
		if err != nil {
			return err
		}
		for _, s := range set {
			if s.Note != "" {
				fmt.Fprintf(r.Stderr, "%s is kept but does nothing: %s\n", s.Name, s.Note)
			}
		}
	}
	list, err := r.Backend.Settings(r.ctx, names)
	if err != nil || asJSON {
		return r.json(api.SettingsReply{Settings: list}, err)
	}
	for _, s := range list {
		if bare {
			fmt.Fprintln(r.out, s.Value)
		} else {
			fmt.Fprintf(r.out, "%s = %s\n", s.Name, s.Value)
		}
	}
	return nil
}
