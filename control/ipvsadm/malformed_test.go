package ipvsadm

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"uvs/control"
	"uvs/control/api"
	services "uvs/service"
)

// subject is a director with something of everything, which malformed requests must leave as it is.
type subject struct {
	*control.Director
	machine *machine
}

func newSubject(t testing.TB) *subject {
	t.Helper()
	d := newDirector()
	s := &subject{d, (&machine{names: hosts{}, backend: d}).fresh(t)}
	s.machine.must(t, "--start-daemon backup --mcast-interface lo --syncid 3", "--set 800 110 200", "-A -f 2 -6 -s sh -b sh-port -p 60 -M 64")
	reply, err := d.Change(t.Context(), &api.ChangeRequest{Ops: []api.Op{{Kind: api.AddMarkRule, MarkRule: &api.MarkRule{Mark: 1, Protocol: api.TCP}}}})
	if err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
	return s
}

// state is all that the API shows of the director, and the table that packets meet: not even an equal one is published for
// a request that is refused.
func (s *subject) state(t testing.TB) (text string, table *services.Table) {
	t.Helper()
	var all []any
	add := func(v any, err error) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	list, err := s.Services(t.Context(), nil)
	add(list, err)
	timeouts, err := s.Timeouts(t.Context())
	add(timeouts, err)
	daemons, err := s.Daemons(t.Context())
	add(daemons, err)
	marks, err := s.Marks(t.Context())
	add(marks, err)
	settings, err := s.Settings(t.Context(), nil)
	add(settings, err)
	drains, err := s.Drains(t.Context())
	add(drains, err)
	status, err := s.Status(t.Context())
	add(status, err)
	b, err := json.Marshal(all)
	add(nil, err)
	return string(b), s.Table()
}

// unchanged runs a request, and returns whether the director is just as it was.
func (s *subject) unchanged(t testing.TB, request func()) bool {
	t.Helper()
	text, table := s.state(t)
	request()
	now, published := s.state(t)
	return now == text && published == table
}

// body is a request of the API: a path and what is sent there.
type body struct{ path, text string }

func malformedLines(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/malformed-lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func malformedBodies(t testing.TB) (list []body) {
	t.Helper()
	b, err := os.ReadFile("testdata/malformed-bodies.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		path, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		text, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		list = append(list, body{path, text})
	}
	return list
}

// post sends a body and returns the status and the answer.
func (s *subject) post(b body) (status int, answer string) {
	w := httptest.NewRecorder()
	api.NewHandler(s.Director).ServeHTTP(w, httptest.NewRequest(http.MethodPost, b.path, strings.NewReader(b.text)))
	return w.Code, w.Body.String()
}

func TestMalformedCommandLinesChangeNothing(t *testing.T) {
	s := newSubject(t)
	lines := malformedLines(t)
	for _, line := range lines {
		var errs string
		var exit int
		same := s.unchanged(t, func() { _, errs, exit = s.machine.run(strings.Fields(line), "") })
		if exit == 0 || errs == "" || !same {
			t.Errorf("ipvsadm %s: exit %d, %q; left everything as it was: %v", line, exit, errs, same)
			s = newSubject(t)
		}
	}
	if len(lines) < 200 {
		t.Errorf("%d lines only", len(lines))
	}
}

func TestMalformedBodiesChangeNothing(t *testing.T) {
	s := newSubject(t)
	list := malformedBodies(t)
	for _, b := range list {
		var status int
		var answer string
		same := s.unchanged(t, func() { status, answer = s.post(b) })
		if status < 400 || status > 499 && status != http.StatusNotImplemented || !strings.Contains(answer, `"code"`) || !same {
			t.Errorf("%s %q: status %d, %s; left everything as it was: %v", b.path, b.text, status, answer, same)
			s = newSubject(t)
		}
	}
	if len(list) < 150 {
		t.Errorf("%d bodies only", len(list))
	}
}

// FuzzRefusedCommandLines holds that a command line that ends with an error has changed nothing; nor has one that prints something.
func FuzzRefusedCommandLines(f *testing.F) {
	for _, line := range malformedLines(f) {
		f.Add(strings.Join(strings.Fields(line), "\x00"))
	}
	f.Add("-C")
	f.Add("-A\x00-t\x0010.9.0.7:80\x00-s\x00rr")
	f.Add("-e\x00-t\x0010.9.0.100:80\x00-r\x0010.1.0.11:80\x00-m\x00-w\x005")
	s := newSubject(f)
	f.Fuzz(func(t *testing.T, line string) {
		var out, errs string
		var exit int
		same := s.unchanged(t, func() { out, errs, exit = s.machine.run(strings.Split(line, "\x00"), "") })
		if (exit != 0 || out != "") && !same {
			t.Errorf("ipvsadm %q: exit %d, %q, %q; and yet something is not as it was", line, exit, out, errs)
		}
		if !same {
			s = newSubject(t)
		}
	})
}

// FuzzRefusedBodies holds that a body that is refused has changed nothing, unless it asked to go on after what is refused.
func FuzzRefusedBodies(f *testing.F) {
	for _, b := range malformedBodies(f) {
		f.Add(b.path, b.text)
	}
	f.Add("/v1/change", `{"ops":[{"op":"flush"}]}`)
	f.Add("/v1/change", `{"ops":[{"op":"delete-service","service":{"protocol":"tcp","address":"10.9.0.7","port":80}},{"op":"flush"}],"onError":"continue"}`)
	f.Add("/v1/sysctl", `{"settings":[{"name":"net.ipv4.vs.drop_entry","value":"1"}]}`)
	f.Add("/v1/drain", `{"address":"10.1.0.11"}`)
	s := newSubject(f)
	f.Fuzz(func(t *testing.T, path, text string) {
		if !strings.HasPrefix(path, "/v1/") || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("%?#", c) }) {
			return // no path that a client could send
		}
		var status int
		var answer string
		same := s.unchanged(t, func() { status, answer = s.post(body{path, text}) })
		req, err := api.DecodeChange([]byte(text))
		goesOn := path == "/v1/change" && err == nil && req.OnError != api.Atomic
		if status >= 400 && !same && !goesOn {
			t.Errorf("%s %q: status %d, %s; and yet something is not as it was", path, text, status, answer)
		}
		if !same {
			s = newSubject(t)
		}
	})
}
