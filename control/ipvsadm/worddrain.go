package ipvsadm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"uvs/control/api"
)

// drainInterval is the time between two looks at a drain.
const drainInterval = time.Second

// drainArgs are the arguments of drain and undrain.
type drainArgs struct {
	server  netip.AddrPort // port 0: all
	service *api.ServiceKey
	by      *time.Duration // from now
	noWait  bool
	json    bool
}

// parseDrain reads the arguments of a word, which takes --by and --no-wait or doesn't.
func parseDrain(args []string, now time.Time, drains bool) (a drainArgs, err error) {
	var six bool
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch {
		case option == "--json" && !joined:
			a.json = true
			continue
		case option == "-6" || option == "--ipv6" && !joined:
			six = true
			continue
		case option == "--no-wait" && !joined && drains:
			a.noWait = true
			continue
		case !strings.HasPrefix(option, "-"):
			if a.server.IsValid() {
				return a, fmt.Errorf("one real server at a time, not %s as well", option)
			}
			if a.server, err = serverArg(option); err != nil {
				return a, fmt.Errorf("%s is no address of a real server, such as 10.0.0.11 or 10.0.0.11:80", option)
			}
			continue
		}
		if !joined {
			if len(args) == 0 {
				return a, fmt.Errorf("%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		key, ours, wrong := serviceOption(option, value)
		switch {
		case ours:
			a.service, err = key, wrong
		case option == "--by" && drains:
			a.by, err = deadline(value, now)
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return a, fmt.Errorf("%s %s: %w", option, value, err)
		}
	}
	if six {
		err = withIPv6(a.service)
	}
	return a, err
}

// serverArg reads ADDRESS or ADDRESS:PORT; without a port it is 0.
func serverArg(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	return netip.ParseAddrPort(s)
}

// deadline reads 90s, 5m, 1h30m, or the time of day 17:30 when it next comes.
func deadline(s string, now time.Time) (*time.Duration, error) {
	if at, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		next := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if !next.After(now) {
			next = next.AddDate(0, 0, 1)
		}
		d := next.Sub(now)
		return &d, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return nil, errors.New("neither a span such as 90s or 5m nor a time of day such as 17:30")
	}
	return &d, nil
}

// drain is the word drain: empties a real server and watches it become empty. Without a server it lists those that are being
// drained.
func (r *run) drain(args []string) error {
	a, err := parseDrain(args, time.Now(), true)
	if err == nil && !a.server.IsValid() && (a.by != nil || a.noWait || a.service != nil) {
		err = errors.New("which real server? ADDRESS or ADDRESS:PORT")
	}
	if err != nil {
		return r.complain("drain", "%v", err)
	}
	if !a.server.IsValid() {
		list, err := r.Backend.Drains(r.ctx)
		if err != nil || a.json {
			return r.drainsJSON(list, err)
		}
		return r.listDrains(list)
	}
	req := &api.DrainRequest{Address: a.server.Addr(), Port: a.server.Port(), Service: a.service}
	if a.by != nil {
		seconds := uint32(min((*a.by+time.Second-1)/time.Second, api.MaxDrainSeconds+1))
		req.WithinSeconds = &seconds
	}
	if err := req.Check(); err != nil {
		return r.complain("drain", "%v", err)
	}
	ctx, stop := signal.NotifyContext(r.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	list, err := r.Backend.Drain(ctx, req)
	switch {
	case err != nil:
		return err
	case a.noWait && a.json:
		return r.drainsJSON(list, nil)
	case a.noWait:
		fmt.Fprintf(r.out, "%s takes no new connections: %s\n", drainedName(req), drainProgress(list))
		return nil
	}
	return r.watchDrain(ctx, req, list, a.json)
}

// watchDrain shows how a drain goes on until the servers are empty or somebody interrupts it: then it is a mere quiescing.
func (r *run) watchDrain(ctx context.Context, req *api.DrainRequest, list []api.Drain, asJSON bool) error {
	name := drainedName(req)
	live := isTerminal(r.Stdout) && !asJSON
	ours := func(d api.Drain) bool {
		return slices.ContainsFunc(list, func(x api.Drain) bool { return x.Service == d.Service && x.Server == d.Server })
	}
	said := ""
	if live && left(list) > 0 {
		fmt.Fprintf(r.out, "%s takes no new connections\n", name)
	}
	for left(list) > 0 {
		if live {
			fmt.Fprintf(r.out, "\r%s%s\x1b[K%s", wrapOff, drainProgress(list), wrapOn)
		} else if what := drainLeft(list); what != said && !asJSON {
			fmt.Fprintf(r.out, "%s takes no new connections: %s\n", name, drainProgress(list))
			said = what
		}
		r.out.Flush()
		select {
		case <-ctx.Done():
			return r.interruptDrain(req, list, live)
		case <-time.After(drainInterval):
		}
		now, err := r.Backend.Drains(ctx)
		if ctx.Err() != nil {
			return r.interruptDrain(req, list, live)
		}
		if err != nil {
			if live {
				fmt.Fprintln(r.out)
			}
			return err
		}
		if now = slices.DeleteFunc(now, func(d api.Drain) bool { return !ours(d) }); len(now) < len(list) {
			if live {
				fmt.Fprintln(r.out)
			}
			return fmt.Errorf("%s: no longer drained: somebody gave it a weight, or removed it", name)
		}
		list = now
	}
	if asJSON {
		return r.drainsJSON(list, nil)
	}
	var ended, cut uint64
	var elapsed uint32
	for _, d := range list {
		ended, cut, elapsed = ended+d.Ended, cut+d.Cut, max(elapsed, d.ElapsedSeconds)
	}
	fmt.Fprintf(r.out, "%s%s is empty after %s: %s ended, %s cut; uvsadm undrain %s gives it its weight back%s\n", choose(live, "\r", ""), name,
		span(elapsed), count(ended, "connection"), choose(cut == 1, "1 was", fmt.Sprintf("%d were", cut)), name, choose(live, "\x1b[K", ""))
	return nil
}

// What a terminal is told so that a line that is longer than it is wide doesn't go on in the next.
const (
	wrapOff = "\x1b[?7l"
	wrapOn  = "\x1b[?7h"
)

// interruptDrain calls the deadline off, and says how things are.
func (r *run) interruptDrain(req *api.DrainRequest, list []api.Drain, live bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 5*time.Second)
	defer cancel()
	off := *req
	off.WithinSeconds = nil
	if now, err := r.Backend.Drain(ctx, &off); err == nil {
		list = now
	} else if req.WithinSeconds != nil {
		return fmt.Errorf("interrupted, and the deadline could not be called off: %w", err)
	}
	name := drainedName(req)
	if live {
		fmt.Fprintln(r.out)
	}
	return &failure{
		text: fmt.Sprintf("interrupted: %s stays quiesced (weight 0) with %s; nothing will be cut; uvsadm undrain %s gives it its weight back",
			name, drainLeft(list), name),
		exit: exitInterrupted,
	}
}

// exitInterrupted is the exit status of a word that was interrupted, as a shell has it for SIGINT.
const exitInterrupted = 130

// undrain is the word undrain.
func (r *run) undrain(args []string) error {
	a, err := parseDrain(args, time.Now(), false)
	if err == nil && !a.server.IsValid() {
		err = errors.New("which real server? ADDRESS or ADDRESS:PORT")
	}
	req := &api.UndrainRequest{Address: a.server.Addr(), Port: a.server.Port(), Service: a.service}
	if err == nil {
		err = req.Check()
	}
	if err != nil {
		return r.complain("undrain", "%v", err)
	}
	list, err := r.Backend.Undrain(r.ctx, req)
	if err != nil || a.json {
		return r.drainsJSON(list, err)
	}
	for _, d := range list {
		fmt.Fprintf(r.out, "%v of %v has weight %d again\n", d.Server, d.Service, d.Weight)
	}
	return nil
}

func (r *run) drainsJSON(list []api.Drain, err error) error {
	if list == nil {
		list = []api.Drain{}
	}
	return r.json(api.DrainsReply{Drains: list}, err)
}

// listDrains prints a line for each drain.
func (r *run) listDrains(list []api.Drain) error {
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "Real server\tService\tState\tWeight before\tActive\tInactive\tTemplates\tEnded\tCut\tEmpty in\tCut in\n")
	for _, d := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", named(d.Server, d.ServerLabel), named(d.Service, d.ServiceLabel), d.State, d.Weight, d.Active, d.Inactive,
			d.Persistent, d.Ended, d.Cut, spanOr(d.EmptyInSeconds, "?"), spanOr(d.LeftSeconds, "never"))
	}
	return t.Flush()
}

func drainedName(r *api.DrainRequest) string {
	if r.Port == 0 {
		return r.Address.String()
	}
	return netip.AddrPortFrom(r.Address, r.Port).String()
}

// left is how many connections and templates there still are.
func left(list []api.Drain) (n uint64) {
	for _, d := range list {
		n += d.Active + d.Inactive + d.Persistent
	}
	return n
}

// drainLeft says how much there still is.
func drainLeft(list []api.Drain) string {
	var connections, templates uint64
	for _, d := range list {
		connections, templates = connections+d.Active+d.Inactive, templates+d.Persistent
	}
	s := count(connections, "connection")
	if templates > 0 {
		s += " and " + count(templates, "persistence template")
	}
	return s + " left"
}

// drainProgress says that, when it will be over, and when the rest is cut.
func drainProgress(list []api.Drain) string {
	var empty, cut *uint32
	known := true
	for _, d := range list {
		if d.State == api.Drained {
			continue
		}
		known = known && d.EmptyInSeconds != nil
		empty, cut = later(empty, d.EmptyInSeconds), later(cut, d.LeftSeconds)
	}
	s := drainLeft(list)
	switch {
	case left(list) == 0:
		return s
	case cut != nil && *cut == 0:
		return s + ", being cut"
	case known && empty != nil:
		s += ", empty in about " + span(*empty)
	}
	if cut != nil {
		s += ", the rest is cut in " + span(*cut)
	}
	return s
}

func later(a, b *uint32) *uint32 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

func span(seconds uint32) string { return (time.Duration(seconds) * time.Second).String() }

func spanOr(seconds *uint32, none string) string {
	if seconds == nil {
		return none
	}
	return span(*seconds)
}

// isTerminal says that what is written to w somebody sees as it comes.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
