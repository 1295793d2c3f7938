package ipvsadm

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"uvs/control/api"
)

// exitFindings is doctor's status when something is wrong, exitUnasked when uvsd could not be asked.
const (
	exitFindings = 1
	exitUnasked  = 2
)

// doctor is the word doctor: the mistakes in the network around the director.
func (r *run) doctor(args []string) error {
	asJSON := false
	for _, a := range args {
		if a != "--json" {
			return r.complain("doctor", "unexpected argument %s", a)
		}
		asJSON = true
	}
	d, err := r.Backend.Doctor(r.ctx)
	switch {
	case err != nil:
		return &failure{text: fmt.Sprintf("%s doctor: %v", filepath.Base(r.Name), err), exit: exitUnasked}
	case asJSON:
		err = r.json(d, nil)
	default:
		r.diagnosis(d)
	}
	if err == nil && len(d.Findings) > 0 {
		err = &failure{exit: exitFindings}
	}
	return err
}

// diagnosis prints what was found, and what could not be asked.
func (r *run) diagnosis(d *api.Diagnosis) {
	for i := range d.Findings {
		f := &d.Findings[i]
		fmt.Fprintf(r.out, "%d. %s: %s\n", i+1, f.Kind, f.What)
		fmt.Fprintf(r.out, "   Seen: %s\n", f.Seen)
		for _, m := range f.Remedies {
			on := "on the " + m.On
			if m.System != "" {
				on += " (" + m.System + ")"
			}
			fmt.Fprintf(r.out, "   Mend, %s:\n", on)
			for _, line := range m.Do {
				fmt.Fprintf(r.out, "       %s\n", line)
			}
		}
		fmt.Fprintln(r.out)
	}
	for _, u := range d.Unchecked {
		fmt.Fprintf(r.out, "Not checked: %s\n", u)
	}
	found := cmp.Or(strings.TrimPrefix(count(uint64(len(d.Findings)), "finding"), "0 findings"), "nothing wrong was found")
	fmt.Fprintf(r.out, "%s asked for by ARP and neighbour discovery, %s by %s in %.1f s: %s\n", choose(d.Addresses == 1, "1 address", fmt.Sprint(d.Addresses, " addresses")),
		count(uint64(d.Servers), "server"), count(uint64(d.Probes), "probe"), float64(d.Milliseconds)/1000, found)
}
