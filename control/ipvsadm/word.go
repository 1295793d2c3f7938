package ipvsadm

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"uvs/control/api"
)

//go:embed words.txt
var wordsText string // with @ for the program's name

// runWord is uvsadm: ipvsadm's language, and words of its own where an argument does not begin with a hyphen.
func (p *Program) runWord(ctx context.Context, args []string) (exit int) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		exit = p.Run(ctx, args)
		if len(args) > 0 && (args[0] == "-h" || args[0] == "--help") {
			fmt.Fprint(p.Stdout, "\n"+strings.ReplaceAll(wordsText, "@", filepath.Base(p.Name)))
		}
		return exit
	}
	return p.with(ctx, func(r *run) error { return r.word(args[0], args[1:]) })
}

func (r *run) word(name string, args []string) error {
	switch name {
	case "mark":
		return r.mark(args)
	case "sysctl":
		return r.sysctl(args)
	case "explain":
		return r.explain(args)
	case "top":
		return r.top(args)
	case "trace":
		return r.trace(args)
	case "save":
		return r.saveWord(args)
	case "reload", "diff":
		return r.reload(name, args)
	case "drain":
		return r.drain(args)
	case "undrain":
		return r.undrain(args)
	case "shadow":
		return r.shadow(args)
	case "doctor":
		return r.doctor(args)
	case "check":
		return r.check(args)
	case "health":
		return r.healthWord(args)
	case "import":
		return r.importWord(args)
	case "completion":
		return r.completion(args)
	case "list", "connections", "timeouts", "daemons":
		return r.listWord(name, args)
	}
	asJSON := false
	for _, a := range args {
		if a != "--json" || asJSON {
			return failf("%s %s: unexpected argument %s", filepath.Base(r.Name), name, a)
		}
		asJSON = true
	}
	switch name {
	case "help":
		r.out.WriteString(strings.ReplaceAll(wordsText, "@", filepath.Base(r.Name)))
		return nil
	case "status":
		status, err := r.Backend.Status(r.ctx)
		if err != nil || asJSON {
			return r.json(status, err)
		}
		return r.status(status)
	case "version":
		v, err := r.Backend.Version(r.ctx)
		if err != nil || asJSON {
			return r.json(v, err)
		}
		fmt.Fprintf(r.out, "uvsd %s, in the manner of IPVS %s\n", v.UVS, v.IPVS)
		return nil
	}
	return failf("%s: no such word: %s (try: %s help)", filepath.Base(r.Name), name, filepath.Base(r.Name))
}

// saveWord is the word save: -S, and with --full what -S leaves out, for uvsadm -R and uvsadm alone to read back; or with --yaml
// the configuration file.
func (r *run) saveWord(args []string) error {
	numeric, full, asYAML, write := true, false, false, false
	for _, a := range args {
		switch a {
		case "--full":
			full = true
		case "--yaml":
			asYAML = true
		case "--write":
			write = true
		case "--names":
			numeric = false
		case "-n", "--numeric":
		default:
			return r.complain("save", "unexpected argument %s", a)
		}
	}
	switch {
	case asYAML && (full || !numeric), write && !asYAML:
		return r.complain("save", "--yaml stands alone, or with --write")
	case asYAML:
		return r.saveYAML(write)
	}
	return r.save(numeric, full)
}

// complain is a complaint about the arguments of a word.
func (r *run) complain(word, format string, args ...any) error {
	return failf("%s %s: %s", filepath.Base(r.Name), word, fmt.Sprintf(format, args...))
}

func (r *run) json(v any, err error) error {
	if err != nil {
		return err
	}
	enc := json.NewEncoder(r.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// status prints what the director is and does.
func (r *run) status(s *api.Status) error {
	fmt.Fprintf(r.out, "uvsd %s, process %d, up %v, %s\n", s.Version, s.PID, time.Since(s.Started).Round(time.Second), count(s.Revision, "change"))
	fmt.Fprintf(r.out, "%s with %s, %s, %s\n", count(uint64(s.Services), "service"), count(uint64(s.Servers), "server"),
		count(s.Connections, "connection"), count(s.Templates, "template"))

	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nInterface\tState\tMAC\tMode\tLink\tMTU\tOffloads\tOwns\n")
	for _, i := range s.Interfaces {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", i.Name, choose(i.Up, "up", "down"), i.MAC, i.Mode, i.Link, i.MTU,
			choose(i.Offloads, "yes", "no"), addresses(i.Addresses))
	}
	fmt.Fprint(t, "\nWorker\tCPU\tReceived\tForwarded\tAnswered\tPassed\tDropped\tHeld\n")
	for _, w := range s.Workers {
		cpu := "-"
		if w.CPU >= 0 {
			cpu = fmt.Sprint(w.CPU)
		}
		packetRow(t, fmt.Sprint(w.ID), cpu, w.Packets)
	}
	packetRow(t, "all", "", s.Packets)
	if len(s.Drops) > 0 {
		fmt.Fprint(t, "\nDropped for\tFrames\n")
		for _, d := range s.Drops {
			fmt.Fprintf(t, "%s\t%d\n", d.Reason, d.Count)
		}
	}
	err := t.Flush()
	for _, w := range s.Warnings {
		fmt.Fprintf(r.out, "\nWarning: %s\n", w.Text)
		if w.Remedy != "" {
			fmt.Fprintf(r.out, "  %s\n", w.Remedy)
		}
	}
	return err
}

func packetRow(t *tabwriter.Writer, id, cpu string, p api.Packets) {
	fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", id, cpu, p.Received, p.Forwarded, p.Answered, p.Passed, p.Dropped, p.Held)
}

// count writes a number of things.
func count(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

func addresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}
