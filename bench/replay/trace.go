package replay

import (
	"bufio"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"uvs/conntrack"
	"uvs/packet"
	"uvs/service"
)

// A trace is CSV, its first line names the columns, in any order; others than these are passed over:
//
//	time          seconds, in whatever epoch; rows are in its order
//	client        the client's address
//	client_port   its port (0)
//	virtual       the address that it asks (192.0.2.1)
//	virtual_port  its port (0)
//	protocol      tcp, udp or sctp (tcp)
//	duration      seconds until the connection ends (0), where there is no event
//	event         open, active, inactive or close: rows are events, and only an open's need an address
//	id            which connection an event is of, a number
//
// Without event each row is a connection, which is active for its duration.

// columns are the names of a trace's columns, in the order in which one is written.
var columns = []string{"time", "event", "id", "protocol", "client", "client_port", "virtual", "virtual_port", "duration"}

const (
	colTime = iota
	colEvent
	colID
	colProtocol
	colClient
	colClientPort
	colVirtual
	colVirtualPort
	colDuration
	numColumns
)

// eventNames are the events of a trace, by conntrack's kinds.
var eventNames = []string{conntrack.Opened: "open", conntrack.Activated: "active", conntrack.Deactivated: "inactive", conntrack.Closed: "close"}

// longestLine is that of a trace, in bytes.
const longestLine = 64 << 10

// trace reads a trace.
type trace struct {
	cfg    *Config
	lines  *bufio.Scanner
	line   int
	place  [numColumns]int // of a column in a row; -1: it isn't there
	first  int64
	now    int64
	ends   ends // of connections whose duration is known
	follow *follower
	stats  *Stats
}

// newTrace reads the head of a trace.
func newTrace(cfg *Config, in *bufio.Reader, f *follower) (*trace, error) {
	t := &trace{cfg: cfg, lines: bufio.NewScanner(in), follow: f, stats: f.stats, first: math.MinInt64}
	t.lines.Buffer(make([]byte, 4096), longestLine)
	if !t.lines.Scan() {
		return nil, cmpErr(t.lines.Err(), errors.New("line 1: the names of the columns are missing"))
	}
	t.line = 1
	names := strings.Split(strings.TrimSpace(strings.TrimPrefix(t.lines.Text(), "\ufeff")), ",")
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSpace(names[i]))
	}
	for c := range t.place {
		t.place[c] = slices.Index(names, columns[c])
	}
	for _, c := range []int{colTime, colClient} {
		if t.place[c] < 0 {
			return nil, fmt.Errorf("line 1: there is no column %q among %s", columns[c], clip(strings.Join(names, ", ")))
		}
	}
	if t.place[colEvent] >= 0 && t.place[colID] < 0 {
		return nil, errors.New(`line 1: a trace with a column "event" needs one "id"`)
	}
	return t, nil
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

// run reads the trace to its end.
func (t *trace) run(ctx context.Context) error {
	defer func() { t.stats.Lasted = time.Duration(t.now) }()
	for t.lines.Scan() {
		t.line++
		if t.line%4096 == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.cfg.progress()
		}
		text := t.lines.Text()
		if strings.TrimSpace(text) == "" {
			continue
		}
		t.stats.Packets++
		if err := t.row(strings.Split(text, ",")); err != nil {
			var wrong *rowError
			if !errors.As(err, &wrong) {
				return err
			}
			if t.stats.Corrupt == 0 {
				t.stats.CorruptAt, t.stats.CorruptWhy = int64(t.line), err.Error()
			}
			t.stats.Corrupt++
		}
	}
	if err := t.lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", t.line+1, err)
	}
	return nil // what still runs stays as it is
}

// rowError is what is wrong with a row.
type rowError struct{ text string }

func (e *rowError) Error() string { return e.text }

func wrongf(format string, args ...any) error { return &rowError{clip(fmt.Sprintf(format, args...))} }

func (t *trace) row(fields []string) error {
	field := func(c int) string {
		if i := t.place[c]; i >= 0 && i < len(fields) {
			return strings.TrimSpace(fields[i])
		}
		return ""
	}
	at, err := parseSeconds(field(colTime))
	if err != nil {
		return wrongf("line %d: time %q: %v", t.line, field(colTime), err)
	}
	e := event{kind: conntrack.Opened}
	if t.place[colEvent] >= 0 {
		kind := slices.Index(eventNames, strings.ToLower(field(colEvent)))
		if kind < 0 {
			return wrongf("line %d: event %q is none of open, active, inactive, close", t.line, field(colEvent))
		}
		e.kind = conntrack.EventKind(kind)
		if e.id, err = strconv.ParseUint(field(colID), 10, 63); err != nil {
			return wrongf("line %d: id %q is no number", t.line, field(colID))
		}
	} else {
		e.id = uint64(t.line)
	}
	var duration int64
	if e.kind == conntrack.Opened {
		if e.flow, err = t.flow(field); err != nil {
			return err
		}
		if text := field(colDuration); text != "" {
			if duration, err = parseSeconds(text); err != nil || duration < 0 {
				return wrongf("line %d: duration %q is no number of seconds", t.line, text)
			}
		}
	}
	if err := t.pass(at); err != nil {
		return err
	}
	e.at = t.now
	switch {
	case e.kind == conntrack.Opened && !t.cfg.serves(&e.flow):
		t.stats.Elsewhere++
		return nil
	case t.place[colEvent] >= 0:
		return t.follow.take(&e)
	}
	return t.whole(&e, duration)
}

// whole takes a connection in whose duration is known.
func (t *trace) whole(e *event, duration int64) error {
	if err := t.follow.take(e); err != nil {
		return err
	}
	if _, held := t.follow.conns[e.id]; !held {
		return nil
	}
	if e.flow.Proto != packet.ProtoUDP {
		if err := t.follow.take(&event{kind: conntrack.Activated, id: e.id, at: e.at}); err != nil {
			return err
		}
	}
	until := e.at + duration
	if until < e.at { // beyond the end of time
		until = math.MaxInt64
	}
	heap.Push(&t.ends, ending{until, e.id})
	return nil
}

// pass brings the time on to that of a row.
func (t *trace) pass(at int64) error {
	if t.first == math.MinInt64 {
		t.first = at
	}
	if at -= t.first; at < t.now {
		t.stats.Backward++
		return nil
	}
	if err := t.end(at); err != nil {
		return err
	}
	t.now = at
	return nil
}

// end ends connections whose time is up.
func (t *trace) end(at int64) error {
	for len(t.ends) > 0 && t.ends[0].at <= at {
		x := heap.Pop(&t.ends).(ending)
		if err := t.follow.take(&event{kind: conntrack.Closed, id: x.id, at: max(x.at, t.now)}); err != nil {
			return err
		}
		t.now = max(t.now, x.at)
	}
	return nil
}

func (t *trace) flow(field func(int) string) (f packet.Flow, err error) {
	switch p := strings.ToLower(field(colProtocol)); p {
	case "tcp", "":
		f.Proto = packet.ProtoTCP
	case "udp":
		f.Proto = packet.ProtoUDP
	case "sctp":
		f.Proto = packet.ProtoSCTP
	default:
		return f, wrongf("line %d: protocol %q is none of tcp, udp, sctp", t.line, p)
	}
	f.Dst = packet.AddrFrom4(0xc0000201)
	for _, x := range []struct {
		col int
		to  *packet.Addr
	}{{colClient, &f.Src}, {colVirtual, &f.Dst}} {
		text := field(x.col)
		if text == "" && x.col == colVirtual {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return f, wrongf("line %d: %s %q is no address", t.line, columns[x.col], text)
		}
		*x.to = packet.AddrFrom(a.Unmap())
	}
	for _, x := range []struct {
		col int
		to  *uint16
	}{{colClientPort, &f.SrcPort}, {colVirtualPort, &f.DstPort}} {
		if text := field(x.col); text != "" {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				return f, wrongf("line %d: %s %q is no port", t.line, columns[x.col], text)
			}
			*x.to = uint16(n)
		}
	}
	return f, nil
}

// parseSeconds reads seconds with up to nine decimals exactly, as nanoseconds.
func parseSeconds(s string) (int64, error) {
	whole, rest, dotted := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/int64(time.Second)-1 || n < -math.MaxInt64/int64(time.Second)+1 {
		return 0, errors.New("no number of seconds")
	}
	n *= int64(time.Second)
	if !dotted {
		return n, nil
	}
	frac, err := strconv.ParseUint((rest + "000000000")[:9], 10, 32)
	if err != nil || strings.Trim(rest, "0123456789") != "" {
		return 0, errors.New("no number of seconds")
	}
	if strings.HasPrefix(whole, "-") {
		return n - int64(frac), nil
	}
	return n + int64(frac), nil
}

// ending is when a connection ends.
type ending struct {
	at int64
	id uint64
}

// ends is a heap, the earliest first.
type ends []ending

func (e ends) Len() int { return len(e) }
func (e ends) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].id < e[j].id
}
func (e ends) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *ends) Push(x any)   { *e = append(*e, x.(ending)) }
func (e *ends) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// traceWriter writes events as a trace, with other addresses.
type traceWriter struct {
	out   *bufio.Writer
	other *Anonymiser
	begun bool
	ids   map[uint64]uint64 // connections are numbered, lest their ids tell anything
	last  uint64
}

func newTraceWriter(w io.Writer, key []byte) *traceWriter {
	return &traceWriter{out: bufio.NewWriterSize(w, 1<<16), other: NewAnonymiser(key), ids: map[uint64]uint64{}}
}

func (w *traceWriter) write(e *event) error {
	if !w.begun {
		w.begun = true
		fmt.Fprintln(w.out, strings.Join(columns[:colDuration], ","))
	}
	id, known := w.ids[e.id]
	if !known {
		if e.kind != conntrack.Opened {
			return nil
		}
		w.last++
		id = w.last
		w.ids[e.id] = id
	}
	fmt.Fprintf(w.out, "%d.%09d,%s,%d", e.at/int64(time.Second), e.at%int64(time.Second), eventNames[e.kind], id)
	var err error // bufio keeps the first
	if f := &e.flow; e.kind == conntrack.Opened {
		_, err = fmt.Fprintf(w.out, ",%v,%v,%d,%v,%d\n", service.Proto(f.Proto), w.other.Addr(f.Src), f.SrcPort, w.other.Addr(f.Dst), f.DstPort)
	} else {
		_, err = w.out.WriteString(",,,,,\n")
	}
	if e.kind == conntrack.Closed {
		delete(w.ids, e.id)
	}
	return err
}
