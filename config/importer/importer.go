// Package importer turns what other programs were configured with into uvs.yaml: ipvsadm's rules, keepalived.conf,
// ldirectord.cf and Piranha's lvs.cf.
//
// A reader (katree.go, ldread.go ...) makes directives of a file: statements with their place, in blocks. A mapper puts what
// they say into a config.Config and grades each of them: carried over exactly, approximately and how, or not and why. What no
// mapper graded is in the report as not understood, so that nothing is lost in silence.
package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uvs/config"
	"uvs/control/ipvsadm"
)

// Kind is a kind of file.
type Kind string

// The kinds.
const (
	Ipvsadm    Kind = "ipvsadm"    // rules as ipvsadm -S writes them
	Keepalived Kind = "keepalived" // keepalived.conf
	Ldirectord Kind = "ldirectord" // ldirectord.cf
	Piranha    Kind = "lvs"        // Piranha's lvs.cf
)

// Kinds are all kinds.
var Kinds = []Kind{Ipvsadm, Keepalived, Ldirectord, Piranha}

// Options say how a file is to be read.
type Options struct {
	// Kind is the file's; empty to guess it by its content.
	Kind Kind
	// ConfigID is what keepalived's conditions (@id) and ${_INSTANCE} mean: its option -i. Empty is the first part of the
	// host's name, as there.
	ConfigID string
	// Names finds the addresses and ports of names; nil is the system's.
	Names ipvsadm.Names
	// Stdin is what the path "-" means.
	Stdin io.Reader

	limits *limits // nil for the usual ones
}

// Result is an imported file.
type Result struct {
	// Kind is what the file was taken for.
	Kind Kind
	// Report says of each directive what became of it.
	Report Report

	yaml []byte
}

// errKind is the answer to a file that looks like none of the kinds.
var errKind = errors.New("looks like none of the files that can be imported; name its kind with --kind: ipvsadm, keepalived, ldirectord or lvs")

// Import reads a file, and what it includes.
func Import(path string, o Options) (*Result, error) {
	lim := o.limits
	if lim == nil {
		lim = &defaultLimits
	}
	f := &files{limits: *lim}
	text, err := f.text(path, o.Stdin)
	if err != nil {
		return nil, err
	}
	return importText(path, text, o, f)
}

// importText imports the text of a file; f reads what it includes.
func importText(path, text string, o Options, f *files) (r *Result, err error) {
	lim := &f.limits
	if o.Kind == "" {
		if o.Kind = guess(path, text); o.Kind == "" {
			return nil, fmt.Errorf("%s: %w", path, errKind)
		}
	}
	if o.Names == nil {
		o.Names = new(ipvsadm.SystemNames)
	}
	name := path
	if path == "-" {
		name = "stdin"
	}
	b := &builder{equals: map[bool]string{true: " = ", false: " "}[o.Kind == Piranha], names: o.Names, labels: map[string]bool{}, seen: map[string]bool{}}
	var tree, notes []*directive
	switch o.Kind {
	case Keepalived:
		if o.ConfigID == "" {
			host, _ := os.Hostname()
			o.ConfigID, _, _ = strings.Cut(host, ".")
		}
		if tree, notes, err = readKeepalived(name, text, o.ConfigID, f); err == nil {
			b.keepalived(tree)
		}
	case Ldirectord:
		if tree, err = readLdirectord(name, text, lim); err == nil {
			b.ldirectord(tree)
		}
	case Piranha:
		if tree, err = readPiranha(name, text, lim); err == nil {
			b.piranha(tree)
		}
	case Ipvsadm:
		if tree, err = b.ipvsadm(name, text, lim); err != nil {
			break
		}
	default:
		err = fmt.Errorf("%s: no such kind of file: there are ipvsadm, keepalived, ldirectord and lvs", o.Kind)
	}
	if err != nil {
		return nil, err
	}
	r = &Result{Kind: o.Kind}
	for _, d := range append(tree, notes...) {
		r.Report.add(d)
	}
	order := r.Report.files()
	slices.SortStableFunc(r.Report.Items, func(x, y Item) int {
		if x.File != y.File {
			return order[x.File] - order[y.File]
		}
		return x.Line - y.Line
	})
	b.cfg.Comment = "Imported from " + name + ", " + kindNames[o.Kind] + "." + b.stillWanted()
	r.yaml, err = config.Marshal(&b.cfg)
	if end := b.trailer(); end != "" {
		r.yaml = append(append(bytes.TrimRight(r.yaml, "\n"), "\n\n"...), end...)
	}
	return r, err
}

var kindNames = map[Kind]string{Ipvsadm: "rules of ipvsadm", Keepalived: "a file of keepalived's", Ldirectord: "a file of ldirectord's", Piranha: "a file of Piranha's"}

// stillWanted is what the file that was imported doesn't say, and uvsd must be told.
func (b *builder) stillWanted() (text string) {
	nat, mark, gateway := false, false, false
	for i := range b.cfg.Services {
		s := &b.cfg.Services[i]
		mark = mark || s.FWMark != 0
		nat = nat || s.Method == "nat" || slices.ContainsFunc(s.Servers, func(r config.Server) bool { return r.Method == "nat" })
	}
	for _, i := range b.cfg.Interfaces {
		gateway = gateway || len(i.Gateways) > 0
	}
	if len(b.cfg.Interfaces) == 0 {
		text += "\n- interfaces: add those that uvsd attaches to, or start it with --interface"
		if len(b.links) > 0 {
			text += "; VRRP was on " + plain(strings.Join(b.links, ", "))
		}
		text += "."
	}
	if nat && !gateway {
		text += "\n- interfaces.gateways: add the address that the real servers of NAT have as their gateway, or start uvsd with --gateway."
	}
	if mark {
		text += "\n- marks: write the rules that give packets their marks, as netfilter did."
	}
	if text != "" {
		text = "\nStill to do:" + text
	}
	return text
}

// YAML is the result as uvs.yaml.
func (r *Result) YAML() []byte { return r.yaml }

// Check says whether uvsd --check accepts the result. Files that it names and that aren't here, such as certificates, are
// counted as wrong there.
func (r *Result) Check() error {
	_, err := config.Parse("uvs.yaml", r.yaml)
	return err
}

// trailer is what stands as comments at the end of the file.
func (b *builder) trailer() string {
	var s strings.Builder
	line := func(indent int, text string) {
		s.WriteString(strings.TrimRight("# "+strings.Repeat("    ", indent)+plain(text), " ") + "\n")
	}
	for i, n := range b.notes {
		if i > 0 {
			s.WriteByte('\n')
		}
		for l := range strings.Lines(n) {
			line(0, strings.TrimRight(l, "\n"))
		}
	}
	if len(b.ha) == 0 {
		return s.String()
	}
	if s.Len() > 0 {
		s.WriteByte('\n')
	}
	line(0, "What follows is for high availability, which this version of uvs doesn't do, as it stood:")
	var write func(d *directive, indent int)
	write = func(d *directive, indent int) {
		text := d.name
		if d.raw != "" && !d.isBlock {
			text += b.equals + strings.TrimSpace(d.raw)
		} else {
			for _, a := range d.args {
				text += " " + quoted(a)
			}
		}
		if d.isBlock {
			text += " {"
		}
		line(indent, text)
		for _, in := range d.block {
			write(in, indent+1)
		}
		if d.isBlock {
			line(indent, "}")
		}
	}
	for i, d := range b.ha {
		if d.isBlock || i == 0 || b.ha[i-1].isBlock {
			s.WriteString("#\n")
		}
		write(d, 0)
	}
	return s.String()
}

// plain is text that can stand in a comment.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff || r == '\ufffd' || r > 0x10ffff {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// guess tells the kind of a file by its statements, and by its name where they leave it open.
func guess(path, text string) Kind {
	points := map[Kind]int{}
	n := 0
	for line := range strings.Lines(text) {
		s := strings.TrimSpace(line)
		if s == "" || s[0] == '#' || s[0] == '!' {
			continue
		}
		if n++; n > 1000 {
			break
		}
		words := strings.Fields(s)
		key, _, equals := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		switch {
		case words[0] == "ipvsadm", len(words) > 2 && (words[0] == "-A" || words[0] == "-a" || words[0] == "--add-service" || words[0] == "--add-server"):
			points[Ipvsadm] += 3
		case len(words) == 3 && words[2] == "{" && (words[0] == "virtual" || words[0] == "server" || words[0] == "failover"):
			points[Piranha] += 5
		case equals && slices.Contains(lvsGlobals, key):
			points[Piranha]++
		case equals && (key == "virtual" || key == "virtual6" || key == "real" || key == "real6"):
			points[Ldirectord] += 3
		case equals && (slices.Contains(ldGlobals, key) || slices.Contains(ldVirtuals, key)):
			points[Ldirectord]++
		case slices.Contains(kaRoots, strings.TrimRight(words[0], "{")), slices.Contains(kaIncludes, words[0]) && len(words) == 2:
			points[Keepalived] += 3
		case strings.HasPrefix(s, "~SEQ"), strings.HasPrefix(s, "~LST"), equals && s[0] == '$' && isName(key[1:]):
			points[Keepalived]++
		}
	}
	best, most := Kind(""), 0
	for _, k := range Kinds {
		if points[k] > most {
			best, most = k, points[k]
		}
	}
	if best != "" {
		return best
	}
	switch base := filepath.Base(path); {
	case strings.Contains(base, "keepalived"):
		return Keepalived
	case strings.Contains(base, "ldirectord"):
		return Ldirectord
	case base == "lvs.cf":
		return Piranha
	}
	return ""
}

// kaRoots are keywords that stand outside of blocks in keepalived.conf.
var kaRoots = append([]string{"global_defs", "virtual_server", "virtual_server_group", "SSL", "track_file", "vrrp_track_file", "net_namespace"}, kaHA...)
