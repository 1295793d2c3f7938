package ipvsadm

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uvs/control/api"
)

// Program is ipvsadm with what it is connected to.
type Program struct {
	// Name is what it was called by, with its directory: usage and hints repeat it.
	Name    string
	Backend api.Backend
	Names   Names
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	// Import is the word import's; nil is none.
	Import ImportFunc
	// Zone is where trace's times are; nil is the machine's.
	Zone *time.Location
}

// Exit statuses of ipvsadm. A complaint of its own is 2.
const (
	exitRefused  = 255 // uvsd refused, or popt did
	exitNoneSuch = 1   // -L of a service that is not there
)

// versionLine is what ipvsadm -v prints. Programs read it, so it tells the language that is spoken, not uvs's version.
const versionLine = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"

//go:embed usage.txt
var usageText string // with @ for the program's name

// run is a Program at work.
type run struct {
	*Program
	ctx    context.Context
	lookup *lookup
	out    *bufio.Writer
}

// Run carries out a command line without the program's name and returns its exit status.
func (p *Program) Run(ctx context.Context, args []string) (exit int) {
	return p.with(ctx, func(r *run) error {
		if len(args) == 0 {
			args = []string{"-L"}
		}
		req, err := parse(args, r.lookup, false)
		if err != nil {
			return err
		}
		return r.do(req)
	})
}

// with runs f and reports its error as ipvsadm does.
func (p *Program) with(ctx context.Context, f func(*run) error) (exit int) {
	r := &run{Program: p, ctx: ctx, lookup: &lookup{p.Names}, out: bufio.NewWriterSize(p.Stdout, 64<<10)}
	err := f(r)
	if broken := r.out.Flush(); broken != nil && err == nil {
		err = broken
	}
	return r.report(err)
}

// report prints an error and returns the exit status that goes with it.
func (r *run) report(err error) (exit int) {
	if err == nil {
		return 0
	}
	text, exit := err.Error(), exitRefused
	switch f := (*failure)(nil); {
	case errors.Is(err, errTryHelp):
		text = fmt.Sprintf("Try `%s -h' or '%s --help' for more information.", r.Name, r.Name)
	case errors.As(err, &f):
		exit = f.exit
	case errors.As(err, new(*usageError)):
	default:
		text = filepath.Base(r.Name) + ": " + text
	}
	if text != "" {
		fmt.Fprintln(r.Stderr, text)
	}
	return exit
}

// do carries out a request.
func (r *run) do(req *request) error {
	if op := req.op(); op != nil {
		return r.change([]pending{{cmd: req.cmd, op: op}})
	}
	switch req.cmd {
	case cmdHelp:
		r.out.WriteString(versionLine + strings.ReplaceAll(usageText, "@", r.Name))
	case cmdVersion:
		r.out.WriteString(versionLine)
	case cmdRestore:
		return r.restore(r.Stdin, nil)
	case cmdSave:
		return r.save(req.given.has(optNumeric), false)
	case cmdList:
		return r.list(req)
	}
	return nil
}

func (r *run) printer(given optionSet) *printer {
	return &printer{w: r.out, lookup: r.lookup, numeric: given.has(optNumeric), exact: given.has(optExact)}
}

func (r *run) save(numeric, full bool) error {
	services, err := r.Backend.Services(r.ctx, nil)
	if err != nil {
		return refusal(cmdSave, err)
	}
	sorted(services)
	p := &printer{w: r.out, lookup: r.lookup, numeric: numeric, full: full}
	for i := range services {
		p.save(&services[i])
	}
	if !full {
		return nil
	}
	daemons, err := r.Backend.Daemons(r.ctx)
	for i := range daemons {
		p.saveDaemon(&daemons[i])
	}
	return refusal(cmdSave, err)
}

func (r *run) list(req *request) error {
	p := r.printer(req.given)
	p.labels = req.labels
	switch given := req.given; {
	case given.has(optConnection):
		return r.listConnections(p, given.has(optPersistentConn), nil)
	case given.has(optTimeout):
		t, err := r.Backend.Timeouts(r.ctx)
		if err != nil {
			return refusal(cmdList, err)
		}
		fmt.Fprintf(r.out, "Timeout (tcp tcpfin udp): %d %d %d\n", t.TCP, t.TCPFin, t.UDP)
		return nil
	case given.has(optDaemon):
		daemons, err := r.Backend.Daemons(r.ctx)
		for i := range daemons {
			p.daemon(&daemons[i])
		}
		return refusal(cmdList, err)
	case given.has(optService):
		return r.listService(req, p)
	}
	version, err := r.Backend.Version(r.ctx)
	if err != nil {
		return refusal(cmdList, err)
	}
	services, err := r.Backend.Services(r.ctx, nil)
	if err != nil {
		return refusal(cmdList, err)
	}
	if !req.given.has(optNoSort) {
		sorted(services)
	}
	fmt.Fprintf(r.out, "IP Virtual Server version %s (size=%d)\n", version.IPVS, version.ConnTableSize)
	p.services(services, styleOf(req.given))
	return nil
}

// listConnections prints connections as they come. With names it takes them all first: a slow name server must not keep
// uvsd waiting, which cuts off clients that do not read.
func (r *run) listConnections(p *printer, engines bool, of *api.ServiceKey) error {
	var all []api.Connection
	err := r.Backend.Connections(r.ctx, api.ConnectionFilter{Service: of}, func(c *api.Connection) error {
		switch {
		case !p.numeric:
			all = append(all, *c)
			return nil
		case !p.headed:
			p.connectionsHead(engines)
		}
		p.connection(c, engines)
		return nil
	})
	if err != nil {
		return refusal(cmdList, err)
	}
	if !p.headed {
		p.connectionsHead(engines)
	}
	for i := range all {
		p.connection(&all[i], engines)
	}
	return nil
}

func (r *run) listService(req *request, p *printer) error {
	err := error(api.ServiceNotFound)
	var services []api.Service
	if req.key.Check() == nil { // else none can be there
		services, err = r.Backend.Services(r.ctx, &req.key)
	}
	if errors.Is(err, api.ServiceNotFound) {
		return &failure{text: "No such service", exit: exitNoneSuch}
	}
	if err != nil {
		return refusal(cmdList, err)
	}
	if !req.given.has(optNoSort) {
		sorted(services)
	}
	p.services(services, styleOf(req.given))
	return nil
}

// pending is a command line of -R that waits to be sent, or a complaint about one that waits for its turn to be printed.
type pending struct {
	cmd command
	op  *api.Op
	err error
}

// change sends operations as one change, prints what was refused and returns the error of the last line, unprinted. Only
// beyond api.MaxOps are there several changes.
func (r *run) change(lines []pending) error {
	// Lines whose operation cannot be put in words of the API are refused here.
	req := &api.ChangeRequest{OnError: api.Continue}
	var at []int
	for i := range lines {
		l := &lines[i]
		if l.op == nil {
			continue
		}
		if l.op.Check() != nil {
			l.err = refusal(l.cmd, api.Invalid)
			continue
		}
		req.Ops = append(req.Ops, *l.op)
		at = append(at, i)
	}
	for start := 0; start < len(req.Ops); start += api.MaxOps {
		end := min(start+api.MaxOps, len(req.Ops))
		reply, err := r.Backend.Change(r.ctx, &api.ChangeRequest{Ops: req.Ops[start:end], OnError: req.OnError})
		if err != nil {
			return refusal(0, err)
		}
		for i, result := range reply.Results {
			if result.Error != nil {
				l := &lines[at[start+i]]
				l.err = refusal(l.cmd, result.Error)
			}
		}
	}
	for i := range lines {
		if i == len(lines)-1 {
			return lines[i].err
		}
		r.report(lines[i].err)
	}
	return nil
}

// restore reads command lines and carries them out: those that change something together as one change, in so far as
// none that prints comes between. before is carried out with the first of them.
func (r *run) restore(from io.Reader, before []pending) error {
	waiting := before
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		args := restoreFields(lines.Text())
		if len(args) == 0 {
			continue
		}
		req, err := parse(args, r.lookup, true)
		if errors.As(err, new(*usageError)) {
			waiting = append(waiting, pending{err: err}) // not the end of it
			continue
		}
		if err == nil && req.op() != nil {
			waiting = append(waiting, pending{cmd: req.cmd, op: req.op()})
			continue
		}
		r.report(r.change(waiting))
		waiting = nil
		if err != nil {
			return err
		}
		if err := r.do(req); err != nil || req.cmd == cmdHelp || req.cmd == cmdVersion {
			return err
		}
	}
	err := r.change(waiting)
	if lines.Err() != nil {
		r.report(err)
		return fmt.Errorf("read the rules: %w", lines.Err())
	}
	return err
}

// restoreFields takes a line of -R apart. There is no quoting, and "ipvsadm" means nothing wherever it stands.
func restoreFields(line string) []string {
	fields := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' || c == '\r' })
	for i := range fields {
		fields[i], _, _ = strings.Cut(fields[i], "\x00")
	}
	return slices.DeleteFunc(fields, func(f string) bool { return f == "ipvsadm" })
}
