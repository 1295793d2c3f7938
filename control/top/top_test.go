package top

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/vt"

	"uvs/control/api"
)

// source is a director with a script.
type source struct {
	mu       sync.Mutex
	services []api.Service
	conns    []api.Connection
	err      error
	panics   bool
	looks    int
}

func (s *source) Services(context.Context, *api.ServiceKey) ([]api.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	if s.panics {
		panic("bad luck")
	}
	return s.services, s.err
}

func (s *source) Status(context.Context) (*api.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return status(uint64(s.looks)), s.err
}

func (s *source) Connections(_ context.Context, f api.ConnectionFilter, yield func(*api.Connection) error) error {
	for i := range s.conns {
		c := &s.conns[i]
		if f.Service != nil && c.Virtual != netip.AddrPortFrom(f.Service.Address, f.Service.Port) {
			continue
		}
		if err := yield(c); err != nil {
			return err
		}
	}
	return s.err
}

func status(n uint64) *api.Status {
	return &api.Status{Version: "0.1.0", PID: 7, Started: at.Add(-time.Hour), Services: 2, Servers: 4, Connections: 123456,
		Packets: api.Packets{Received: 1000 * n, Forwarded: 900 * n, Dropped: 100 * n}, Drops: []api.Drop{{Reason: "no-route", Count: 7}}}
}

var at = time.Date(2025, 1, 2, 3, 4, 5, 0, time.Local)

func services() []api.Service {
	rs := func(a string, weight int, active, conns, bytes uint64) api.Server {
		p := netip.MustParseAddrPort(a)
		return api.Server{ServerKey: api.ServerKey{Address: p.Addr(), Port: p.Port()}, Config: api.ServerConfig{Method: api.Masq, Weight: weight, Upper: 500},
			Active: active, Inactive: 1, Rates: api.Rates{Conns: conns, InBytes: bytes, OutBytes: 10 * bytes}, Stats: api.Stats{Conns: 1000 * conns}}
	}
	key := func(proto, a string) api.ServiceKey {
		p := netip.MustParseAddrPort(a)
		return api.ServiceKey{Protocol: proto, Address: p.Addr(), Port: p.Port()}
	}
	return []api.Service{
		{ServiceKey: key(api.TCP, "192.0.2.100:443"), Config: api.ServiceConfig{Scheduler: "wlc", PersistenceSeconds: 300}, Rates: api.Rates{Conns: 30, InBytes: 3_000_000},
			Servers: []api.Server{rs("10.0.0.12:8443", 1, 20, 20, 2_000_000), rs("10.0.0.11:8443", 0, 10, 10, 1_000_000)}},
		{ServiceKey: key(api.UDP, "192.0.2.100:53"), Config: api.ServiceConfig{Scheduler: "rr"}, Rates: api.Rates{Conns: 70, InBytes: 500},
			Servers: []api.Server{rs("10.0.0.22:53", 3, 600, 40, 300), rs("10.0.0.9:53", 1, 5, 30, 200)}},
	}
}

func conns(n int) (all []api.Connection) {
	for i := range n {
		all = append(all, api.Connection{Protocol: api.TCP, Client: netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:40000", i%250)),
			Virtual: netip.MustParseAddrPort("192.0.2.100:443"), Server: netip.MustParseAddrPort([]string{"10.0.0.12:8443", "10.0.0.11:8443"}[i%2]),
			State: []string{"ESTABLISHED", "FIN_WAIT", "SYN_RECV"}[i%3], ExpiresSeconds: uint32(i % 900)})
	}
	return all
}

// newScreen is a screen in memory.
func newScreen(t *testing.T, width, height int) (tcell.Screen, vt.MockTerm) {
	t.Helper()
	term := vt.NewMockTerm(vt.MockOptSize{X: vt.Col(width), Y: vt.Row(height)})
	screen, err := tcell.NewTerminfoScreenFromTty(term, tcell.OptNegotiation(false), tcell.OptTerm("xterm-256color"))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(screen.Fini)
	return screen, term
}

// text is what is on a screen, without blanks at the ends of lines.
func text(screen tcell.Screen) string {
	var b strings.Builder
	width, height := screen.Size()
	for y := range height {
		line := ""
		for x := range width {
			s, _, _ := screen.Get(x, y)
			if s == "" {
				s = " "
			}
			line += s
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// looked is a view that has seen the source twice.
func looked(t *testing.T, src *source) *view {
	t.Helper()
	v := newView(DefaultInterval)
	for i := range 2 {
		s := look(t.Context(), src, v.question())
		s.at = at.Add(time.Duration(i) * 2 * time.Second)
		v.took(s)
	}
	return v
}

// press presses keys, "<name>" for those without a letter, and asks the source where the view wants that.
func press(t *testing.T, v *view, src *source, keys ...string) (last action) {
	t.Helper()
	named := map[string]tcell.Key{"<enter>": tcell.KeyEnter, "<esc>": tcell.KeyEsc, "<up>": tcell.KeyUp, "<down>": tcell.KeyDown, "<pgdn>": tcell.KeyPgDn,
		"<pgup>": tcell.KeyPgUp, "<home>": tcell.KeyHome, "<end>": tcell.KeyEnd, "<bs>": tcell.KeyBackspace, "<ctrl-c>": tcell.KeyCtrlC,
		"<ctrl-u>": tcell.KeyCtrlU, "<ctrl-z>": tcell.KeyCtrlZ}
	for _, k := range keys {
		ev := tcell.NewEventKey(tcell.KeyRune, k, tcell.ModNone)
		if key, ok := named[k]; ok {
			ev = tcell.NewEventKey(key, "", tcell.ModNone)
		}
		if last = v.key(ev); last == refresh {
			s := look(t.Context(), src, v.question())
			s.at = at.Add(4 * time.Second)
			v.took(s)
		}
	}
	return last
}

func TestServicesOnAScreenOf80By24(t *testing.T) {
	screen, _ := newScreen(t, 80, 24)
	v := looked(t, &source{services: services()})
	v.draw(screen)
	want := `uvsd 0.1.0  up 1h0m2s  2 services  4 servers  123k connections          03:04:07
frames/s: 500 received  450 forwarded  0 answered  0 passed  50 dropped, most so
SERVICE, SERVER                HOW    WEIGHT ACTIVE  INACT CONN/s IN B/s OUT B/s
tcp 192.0.2.100:443            wlc P       1     30      2     30   3.0M       0
  10.0.0.12:8443               masq        1     20      1     20   2.0M   20.0M
  10.0.0.11:8443               masq        0     10      1     10   1.0M   10.0M
udp 192.0.2.100:53             rr          4    605      2     70    500       0
  10.0.0.22:53                 masq        3    600      1     40    300    3000
  10.0.0.9:53                  masq        1      5      1     30    200    2000
`
	got := text(screen)
	if !strings.HasPrefix(got, want) {
		t.Errorf("the screen is\n%s\nwant\n%s", got, want)
	}
	if foot := strings.Split(got, "\n")[23]; !strings.HasPrefix(foot, "q quit  ? help  Enter connections  / filter  <> sort  r reverse  c fold  p pause") {
		t.Errorf("the last line is %q, not the keys", foot)
	}
}

// names are the first cells of a view's rows.
func names(v *view) string {
	var all []string
	for i := range v.page.rows {
		all = append(all, strings.TrimSpace(v.page.rows[i].cells[0]))
	}
	return strings.Join(all, " ")
}

func TestSortingAndFilters(t *testing.T) {
	src := &source{services: services()}
	const (
		web = "tcp 192.0.2.100:443"
		dns = "udp 192.0.2.100:53"
	)
	for _, row := range []struct {
		name string
		keys string
		want string
	}{
		{"as the director lists", "", web + " 10.0.0.12:8443 10.0.0.11:8443 " + dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"in reverse", "r", dns + " 10.0.0.9:53 10.0.0.22:53 " + web + " 10.0.0.11:8443 10.0.0.12:8443"},
		{"by address", ">", dns + " 10.0.0.9:53 10.0.0.22:53 " + web + " 10.0.0.11:8443 10.0.0.12:8443"},
		{"by weight", "> > >", dns + " 10.0.0.22:53 10.0.0.9:53 " + web + " 10.0.0.12:8443 10.0.0.11:8443"},
		{"by connections, the fewest first", "> > > > > > r", web + " 10.0.0.11:8443 10.0.0.12:8443 " + dns + " 10.0.0.9:53 10.0.0.22:53"},
		{"by the last column", "<", web + " 10.0.0.12:8443 10.0.0.11:8443 " + dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"back to the director's order", "< r o", web + " 10.0.0.12:8443 10.0.0.11:8443 " + dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"services alone", "c", web + " " + dns},
		{"filtered by service", "/ U D P <enter>", dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"filtered by server", "/ . 1 1 : <enter>", web + " 10.0.0.11:8443"},
		{"filtered by scheduler", "/ w l c <enter>", web + " 10.0.0.12:8443 10.0.0.11:8443"},
		{"filter corrected", "/ x <bs> r r <ctrl-u> r r <enter>", dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"filter given up", "/ r r <esc>", web + " 10.0.0.12:8443 10.0.0.11:8443 " + dns + " 10.0.0.22:53 10.0.0.9:53"},
		{"nothing meets it", "/ z z <enter>", ""},
	} {
		v := looked(t, src)
		press(t, v, src, strings.Fields(row.keys)...)
		if got := names(v); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

func TestDownToConnectionsAndBack(t *testing.T) {
	screen, _ := newScreen(t, 80, 24)
	src := &source{services: services(), conns: conns(100)}
	v := looked(t, src)
	v.draw(screen)
	press(t, v, src, "<down>", "<down>", "<enter>")
	v.draw(screen)
	got := text(screen)
	if len(v.page.rows) != 50 || !strings.Contains(got, "tcp 192.0.2.100:443 at 10.0.0.11:8443, 50 connections") {
		t.Errorf("%d connections of a server, want 50:\n%s", len(v.page.rows), got)
	}
	if !strings.Contains(got, "CLIENT") || !strings.Contains(got, "198.51.100.1:40000") || strings.Contains(got, "10.0.0.12") {
		t.Errorf("the connections of a server are shown as\n%s", got)
	}
	press(t, v, src, "/", "s", "y", "n", "<enter>")
	if n := len(v.page.rows); n != 16 {
		t.Errorf("%d connections in SYN_RECV, want 16", n)
	}
	press(t, v, src, "<esc>")
	if v.of != nil || v.page.cursor != 2 || v.page.filter != "" {
		t.Errorf("back at row %d of %v with filter %q, want row 2 of the services", v.page.cursor, v.of, v.page.filter)
	}
	press(t, v, src, "<home>", "<enter>")
	if n := len(v.page.rows); n != 100 {
		t.Errorf("%d connections of a service, want 100", n)
	}
	src.services = nil // the service is gone meanwhile
	press(t, v, src, " ", "<esc>", "<enter>")
	if len(v.page.rows) != 0 {
		t.Errorf("rows of a service that is gone: %s", names(v))
	}
	v.draw(screen)
	if !strings.Contains(text(screen), "no virtual services") {
		t.Errorf("nothing is shown as\n%s", text(screen))
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	src := &source{services: services(), conns: conns(maxConns + 500)}
	v := looked(t, src)
	press(t, v, src, "<enter>")
	if n := len(v.page.rows); n != maxConns || v.shown() != fmt.Sprintf(", %d of %d connections", maxConns, maxConns+500) {
		t.Errorf("%d rows%s", n, v.shown())
	}
	press(t, v, src, strings.Split("/198.51.100.249:", "")...)
	press(t, v, src, "<enter>") // looks among all
	if n := len(v.page.rows); n != (maxConns+500)/250 {
		t.Errorf("%d connections of one client, want %d", n, (maxConns+500)/250)
	}
}

func TestTheCursorStaysWithItsRow(t *testing.T) {
	screen, _ := newScreen(t, 80, 8)
	src := &source{services: services()}
	v := looked(t, src)
	v.draw(screen)
	press(t, v, src, "<down>", "<down>", "r")
	if i := v.page.cursor; names(v) == "" || !strings.Contains(v.page.rows[i].cells[0], "10.0.0.11:8443") {
		t.Errorf("the cursor went to row %d of %s", i, names(v))
	}
	for _, keys := range [][]string{{"<end>"}, {"<pgup>"}, {"<pgdn>", "<pgdn>", "<pgdn>"}, {"<home>", "<up>"}, {"j", "j", "k"}} {
		press(t, v, src, keys...)
		v.draw(screen)
		if p := &v.page; p.cursor < p.top || p.cursor >= p.top+v.height || p.cursor >= len(p.rows) {
			t.Errorf("after %v: row %d, rows %d to %d of %d are on the screen", keys, p.cursor, p.top, p.top+v.height, len(p.rows))
		}
	}
}

func TestAnyScreenAndAnyKeys(t *testing.T) {
	src := &source{services: services(), conns: conns(30)}
	keys := strings.Fields("? q <down> <enter> / a <esc> > > r <end> <esc> c < < <pgdn> p p + - <up> / 1 <enter> <home> <enter> <left> zz ? x")
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {20, 6}, {12, 4}, {5, 3}, {1, 1}, {80, 2}, {3, 50}} {
		screen, _ := newScreen(t, size[0], size[1])
		v := newView(time.Second)
		v.draw(screen)
		v.took(&sample{err: errors.New("nobody answers")})
		v.draw(screen)
		v.took(look(t.Context(), src, v.question()))
		v.draw(screen)
		for _, k := range keys {
			press(t, v, src, k)
			v.draw(screen)
		}
	}
}

func TestWhatDoesNotFitIsLeftOutByRank(t *testing.T) {
	for width, want := range map[int]int{200: 11, 100: 10, 80: 8, 60: 6, 40: 3, 20: 2, 1: 1, 0: 1} {
		kept, first := fit(mainColumns, width)
		used := first
		for _, i := range kept[1:] {
			used += mainColumns[i].width + 1
		}
		if len(kept) != want || kept[0] != 0 || used != width {
			t.Errorf("%d columns wide: %d columns, %d wide; want %d", width, len(kept), used, want)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 99_999: "99999", 100_000: "100k", 123_456: "123k", 999_499: "999k", 999_600: "1.0M", 12_345_678: "12.3M",
		123_456_789_012: "123G", 1 << 63: "9.2E"} {
		if got := short(n); got != want {
			t.Errorf("short(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestFaultsAreShownAndPass(t *testing.T) {
	screen, _ := newScreen(t, 80, 24)
	src := &source{services: services()}
	v := looked(t, src)
	src.err = errors.New("cannot reach uvsd")
	press(t, v, src, " ")
	v.draw(screen)
	if got := text(screen); !strings.Contains(got, "! cannot reach uvsd") || !strings.Contains(got, "10.0.0.12:8443") {
		t.Errorf("without uvsd the screen is\n%s", got)
	}
	src.err = nil
	press(t, v, src, " ")
	v.draw(screen)
	if got := text(screen); strings.Contains(got, "cannot reach") {
		t.Errorf("when uvsd is back the screen is\n%s", got)
	}
}

// await waits for something to be on the screen.
func await(t *testing.T, screen tcell.Screen, what string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(text(screen), what); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is not on the screen:\n%s", what, text(screen))
		}
	}
}

func TestShowUntilQuit(t *testing.T) {
	screen, term := newScreen(t, 80, 24)
	src := &source{services: services(), conns: conns(10)}
	over := make(chan error, 1)
	go func() { over <- show(t.Context(), src, screen, minInterval) }()
	await(t, screen, "192.0.2.100:443")
	await(t, screen, "received") // a second look
	term.SendRaw([]byte("\r"))
	await(t, screen, "10 connections")
	term.SetSize(vt.Coord{X: 60, Y: 10})
	await(t, screen, "? help  Esc bac\n") // cut at 60
	term.SendRaw([]byte("\x1b"))
	await(t, screen, "Enter connections")
	term.SendRaw([]byte("q"))
	if err := <-over; err != nil {
		t.Errorf("show = %v after q, want nil", err)
	}
}

func TestShowEndsWithItsContext(t *testing.T) {
	screen, _ := newScreen(t, 80, 24)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- show(ctx, &source{services: services()}, screen, minInterval) }()
	await(t, screen, "192.0.2.100:443")
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("show = %v, want %v", err, context.Canceled)
	}
}

// finished is a screen that knows whether Fini was called.
type finished struct {
	tcell.Screen
	done bool
}

func (f *finished) Fini() {
	f.done = true
	f.Screen.Fini()
}

func TestAPanicGivesTheTerminalBackFirst(t *testing.T) {
	screen, _ := newScreen(t, 80, 24)
	f := &finished{Screen: screen}
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "bad luck") || !f.done {
			t.Errorf("panic %v, terminal given back: %v", p, f.done)
		}
	}()
	show(t.Context(), &source{panics: true}, f, minInterval)
}
