package ipvsadm

import (
	"fmt"
	"strings"

	"uvs/control/api"
)

// reload is the words reload and diff: what differs between the configuration file and the director, and its removal. diff ends
// with 1 if something differs, as diff(1) does.
func (r *run) reload(word string, args []string) error {
	req := &api.ReloadRequest{DryRun: word == "diff"}
	asJSON := false
	for _, a := range args {
		switch {
		case a == "--json":
			asJSON = true
		case a == "--prune":
			req.Prune = true
		case a == "--dry-run" && word == "reload":
			req.DryRun = true
		default:
			return r.complain(word, "unexpected argument %s", a)
		}
	}
	x, err := r.Backend.Reload(r.ctx, req)
	if err != nil {
		return &failure{text: err.Error(), exit: exitTrouble}
	}
	if asJSON {
		err = r.json(x, nil)
	} else {
		r.reloaded(x, req)
	}
	switch {
	case err != nil:
		return err
	case len(x.Errors) > 0:
		return &failure{exit: exitTrouble}
	case word == "diff" && differs(x):
		return &failure{exit: exitDiffers}
	}
	return nil
}

// exitDiffers is diff's status when something differs, exitTrouble when that could not be found out, or a file not be loaded.
const (
	exitDiffers = 1
	exitTrouble = 2
)

// differs says that a reload would do something, or that a restart would.
func differs(x *api.Reload) bool {
	for i := range x.Differences {
		if k := x.Differences[i].Kind; k != api.Kept && k != api.Dropped {
			return true
		}
	}
	return len(x.Restart) > 0
}

// signs are what stands before a difference.
var signs = map[string]string{api.Added: "+", api.Removed: "-", api.Changed: "~", api.Kept: "=", api.Dropped: "!"}

// reloaded prints a reload, or what it would be.
func (r *run) reloaded(x *api.Reload, req *api.ReloadRequest) {
	for _, e := range x.Errors {
		switch {
		case e.Line > 0:
			fmt.Fprintf(r.Stderr, "%s:%d:%d: %s\n", e.File, e.Line, e.Column, e.Text)
		case e.File != "":
			fmt.Fprintf(r.Stderr, "%s: %s\n", e.File, e.Text)
		default:
			fmt.Fprintln(r.Stderr, e.Text)
		}
	}
	if len(x.Errors) > 0 {
		fmt.Fprintf(r.Stderr, "%s was not loaded: nothing was changed\n", x.File)
		return
	}
	for i := range x.Differences {
		fmt.Fprintln(r.out, differenceLine(&x.Differences[i]))
	}
	for _, text := range x.Restart {
		fmt.Fprintf(r.out, "* %s: needs a restart of uvsd\n", text)
	}
	switch n := len(x.Differences); {
	case n == 0 && len(x.Restart) == 0:
		fmt.Fprintf(r.out, "nothing differs from %s\n", x.File)
	case !req.DryRun:
		fmt.Fprintf(r.out, "%s was loaded\n", x.File)
	}
}

// differenceLine writes a difference: + tcp 192.0.2.100:80 (web): scheduler wlc, 2 servers.
func differenceLine(x *api.Difference) string {
	var b strings.Builder
	b.WriteString(signs[x.Kind])
	if x.Service != nil {
		fmt.Fprintf(&b, " %v", x.Service)
	}
	if x.Server != nil {
		fmt.Fprintf(&b, " -> %v", x.Server)
	}
	if x.Label != "" {
		fmt.Fprintf(&b, " (%s)", x.Label)
	}
	switch {
	case x.Text == "":
	case x.Service != nil:
		fmt.Fprintf(&b, ": %s", x.Text)
	default:
		fmt.Fprintf(&b, " %s", x.Text)
	}
	return b.String()
}

// saveYAML is save --yaml: the configuration file as it would have to be, or it is written.
func (r *run) saveYAML(write bool) error {
	x, err := r.Backend.Save(r.ctx, &api.SaveRequest{Write: write})
	if err != nil {
		return err
	}
	if !write {
		r.out.WriteString(x.Text)
		return nil
	}
	for i := range x.Differences {
		fmt.Fprintln(r.out, differenceLine(&x.Differences[i]))
	}
	fmt.Fprintf(r.out, "%s was written\n", x.File)
	return nil
}

// named writes a service or server with its name, if it has one: 192.0.2.11:80 (web1).
func named(key fmt.Stringer, label string) string {
	if label == "" {
		return key.String()
	}
	return key.String() + " (" + label + ")"
}
