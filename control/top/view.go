package top

import (
	"time"

	"github.com/gdamore/tcell/v3"

	"uvs/control/api"
)

// view is what is shown and how.
type view struct {
	interval time.Duration
	paused   bool
	help     bool
	typing   bool   // the filter is being typed
	before   string // the filter before that
	note     string // said in the last line until the next key
	folded   bool   // services without their servers

	now, last *sample // last is for rates of frames
	fault     error   // of the last question, if it failed
	page      page
	main      page     // as it was left, while page is of connections
	of        *subject // whose connections are shown, nil for the services
	got       bool     // now has the connections asked for
	height    int      // lines of rows that the screen has
}

// page is a table as it is looked at.
type page struct {
	filter  string
	by      int // column, or unsorted
	reverse bool
	cursor  int // row
	top     int // first row on the screen
	rows    []row
}

func newView(interval time.Duration) *view {
	return &view{interval: min(max(interval, minInterval), maxInterval), page: page{by: unsorted}}
}

// question is what the view needs.
func (v *view) question() question {
	if v.of == nil {
		return question{}
	}
	return question{of: v.of, filter: v.page.filter}
}

// took takes an answer.
func (v *view) took(s *sample) {
	if v.fault = s.err; s.err != nil {
		return
	}
	v.last, v.now = v.now, s
	if v.of != nil {
		v.got = v.got || s.of == v.of
	}
	v.arrange()
}

// arrange makes the page's rows anew. The cursor stays with its row, if that is still there.
func (v *view) arrange() {
	if v.now == nil {
		return
	}
	p := &v.page
	old := ""
	if p.cursor < len(p.rows) {
		old = identity(&p.rows[p.cursor])
	}
	switch {
	case v.of == nil:
		p.rows = serviceRows(v.now.services, p.filter, !v.folded, p.by, p.reverse)
	case v.now.of == v.of:
		p.rows = connRows(v.now.conns, p.filter, p.by, p.reverse)
	case !v.got:
		p.rows = nil
	}
	for i := range p.rows {
		if identity(&p.rows[i]) == old {
			p.cursor = i
			break
		}
	}
	v.move(0)
}

// identity tells rows apart.
func identity(r *row) string {
	if r.inner {
		return r.of.String()
	}
	return r.cells[0] + " " + r.of.service.String()
}

// columns are those of the page.
func (v *view) columns() []column {
	if v.of == nil {
		return mainColumns
	}
	return connColumns
}

// move moves the cursor by n rows and keeps it on the screen.
func (v *view) move(n int) {
	p := &v.page
	p.cursor = max(0, min(p.cursor+n, len(p.rows)-1))
	if p.cursor < p.top {
		p.top = p.cursor
	}
	if v.height > 0 && p.cursor >= p.top+v.height {
		p.top = p.cursor - v.height + 1
	}
	p.top = max(0, min(p.top, len(p.rows)-max(v.height, 1)))
}

// enter goes on to the connections of the row under the cursor.
func (v *view) enter() action {
	if v.of != nil || v.page.cursor >= len(v.page.rows) {
		return nothing
	}
	of := v.page.rows[v.page.cursor].of
	v.main, v.page, v.of, v.got = v.page, page{by: unsorted}, &of, false
	return refresh
}

// leave goes back to the services.
func (v *view) leave() {
	if v.of != nil {
		v.page, v.of = v.main, nil
		v.arrange()
	}
}

// action is what a key asks of show.
type action uint8

const (
	nothing action = iota
	quit
	suspend
	refresh // ask the source at once
	redraw  // the whole screen anew
)

// key does what a key is for.
func (v *view) key(ev *tcell.EventKey) action {
	v.note = ""
	switch ev.Key() {
	case tcell.KeyCtrlC:
		return quit
	case tcell.KeyCtrlZ:
		return suspend
	case tcell.KeyCtrlL:
		return redraw
	}
	if v.typing {
		return v.typeKey(ev)
	}
	if v.help {
		v.help = false
		if ev.Str() == "q" {
			return quit
		}
		return nothing
	}
	switch ev.Key() {
	case tcell.KeyUp:
		v.move(-1)
	case tcell.KeyDown:
		v.move(1)
	case tcell.KeyPgUp:
		v.move(-max(v.height-1, 1))
	case tcell.KeyPgDn:
		v.move(max(v.height-1, 1))
	case tcell.KeyHome:
		v.move(-len(v.page.rows))
	case tcell.KeyEnd:
		v.move(len(v.page.rows))
	case tcell.KeyEnter, tcell.KeyRight:
		return v.enter()
	case tcell.KeyEsc, tcell.KeyLeft, tcell.KeyBackspace:
		v.leave()
	case tcell.KeyRune:
		return v.letter(ev.Str())
	}
	return nothing
}

// letter does what a key with a letter is for.
func (v *view) letter(s string) action {
	p := &v.page
	switch s {
	case "q":
		return quit
	case "k":
		v.move(-1)
	case "j":
		v.move(1)
	case "/":
		v.typing, v.before = true, p.filter
	case ">", "s":
		v.sort(1)
	case "<", "S":
		v.sort(-1)
	case "o":
		p.by, p.reverse = unsorted, false
		v.arrange()
	case "r":
		p.reverse = !p.reverse
		v.arrange()
	case "c":
		if v.of == nil {
			v.folded = !v.folded
			v.arrange()
		}
	case "p":
		if v.paused = !v.paused; !v.paused {
			return refresh
		}
	case " ":
		return refresh
	case "+":
		v.interval = min(v.interval*2, maxInterval)
		v.note = "every " + v.interval.String()
	case "-":
		v.interval = max(v.interval/2, minInterval)
		v.note = "every " + v.interval.String()
	case "?", "h":
		v.help = true
	}
	return nothing
}

// sort goes on to another column.
func (v *view) sort(by int) {
	n := len(v.columns()) + 1
	v.page.by = (v.page.by+1+by+n)%n - 1
	v.arrange()
}

// typeKey takes a key of the filter.
func (v *view) typeKey(ev *tcell.EventKey) action {
	p := &v.page
	switch ev.Key() {
	case tcell.KeyEnter:
		v.typing = false
		return refresh
	case tcell.KeyEsc:
		v.typing, p.filter = false, v.before
	case tcell.KeyBackspace:
		if r := []rune(p.filter); len(r) > 0 {
			p.filter = string(r[:len(r)-1])
		}
	case tcell.KeyCtrlU:
		p.filter = ""
	case tcell.KeyRune:
		const longest = 60
		if len(p.filter) < longest {
			p.filter += ev.Str()
		}
	}
	v.arrange()
	return nothing
}

// frameRates are frames a second between the last two answers.
func (v *view) frameRates() (p api.Packets, ok bool) {
	if v.last == nil || v.last.status == nil || v.now.status == nil || v.last.status.PID != v.now.status.PID {
		return p, false
	}
	seconds := v.now.at.Sub(v.last.at).Seconds()
	rate := func(now, before uint64) uint64 {
		if now < before || seconds <= 0 {
			return 0
		}
		return uint64(float64(now-before)/seconds + 0.5)
	}
	n, b := &v.now.status.Packets, &v.last.status.Packets
	return api.Packets{
		Received: rate(n.Received, b.Received), Forwarded: rate(n.Forwarded, b.Forwarded), Answered: rate(n.Answered, b.Answered),
		Passed: rate(n.Passed, b.Passed), Dropped: rate(n.Dropped, b.Dropped), Held: n.Held,
	}, true
}
