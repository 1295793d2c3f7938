package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/control/api"
	"uvs/control/ipvsadm"
)

// texts is where ipvsadm's own words are, and the kernel's in /proc.
const texts = "../../testdata/golden/text"

// textCheck says how the recorded files of a pattern are reproduced.
type textCheck struct {
	pattern string
	check   func(t *testing.T, file string)
}

// textChecks are all of them: the first whose pattern fits counts.
var textChecks = []textCheck{
	{"00-setup.txt", func(t *testing.T, _ string) { busyMachine(t, nil) }},
	{"out-00-*.txt", func(t *testing.T, file string) { idleMachine(t).play(file) }},
	{"out-Z-after-stats.txt", checkZeroed},
	{"out-*.txt", func(t *testing.T, file string) { busyMachine(t, firstExpiry(t, file)).play(file) }},
	{"ipvsadm-save.txt", checkSaveScript},
	{"rate-20-*.txt", checkSteadyRate},
	{"big-*.txt", checkLargeNumbers},
	{"daemon-*.txt", func(t *testing.T, file string) {
		m := busyMachine(t, nil)
		m.must("-A -t 10.9.0.100:8000 -s rr")
		m.playUpTo("daemon-*.txt", file)
	}},
	{"roundtrip-*.txt", func(t *testing.T, file string) { busyMachine(t, nil).playUpTo("roundtrip-*.txt", file) }},
	{"restore-extra.txt", func(t *testing.T, file string) { newTextMachine(t).play(file) }},
	{"errors.json", checkErrorLines},
	{"errors.txt", checkErrorTranscripts},
	{"proc-ip_vs.txt", checkProcServices},
	{"proc-ip_vs_conn.txt", checkProcConnections},
	{"proc-ip_vs_conn_sync.txt", checkProcConnections},
	{"proc-ip_vs_stats.txt", checkProcTotals},
	{"proc-ip_vs_stats_percpu.txt", checkProcTotals},
	{"proc-ip_vs_app.txt", checkProcHelpers},
	{"proc-sysctl.txt", checkSettings},
}

// TestRecordedText reproduces every recorded file, after the same commands and frames through control and packet path. Debian's
// scripts ipvsadm-save and ipvsadm-restore, which are not in the folder, are run by e2e's TestDebiansInitScript.
func TestRecordedText(t *testing.T) {
	files, err := os.ReadDir(texts)
	if err != nil || len(files) < 102 {
		t.Fatalf("%d recorded files, %v", len(files), err)
	}
	largeNumbers = sync.OnceValue(func() *textMachine { return newLargeNumbers(t) })
	used := make([]bool, len(textChecks))
	for _, f := range files {
		i := slices.IndexFunc(textChecks, func(c textCheck) bool {
			ok, _ := path.Match(c.pattern, f.Name())
			return ok
		})
		if i < 0 {
			t.Errorf("nothing reproduces %s", f.Name())
			continue
		}
		used[i] = true
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			textChecks[i].check(t, f.Name())
		})
	}
	for i, u := range used {
		if !u {
			t.Errorf("there is no file %s", textChecks[i].pattern)
		}
	}
}

// textMachine is a director on which ipvsadm is called as it was for the recordings.
type textMachine struct {
	*Director
	t       *testing.T
	decides bool   // mistakes are reported: off while what leads up to a file is played
	saved   string // what -S -n printed first
}

func newTextMachine(t *testing.T) *textMachine {
	t.Helper()
	d, err := NewDirector()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &textMachine{Director: d, t: t, decides: true}
}

// run carries out a command line and returns what ipvsadm shows of it.
func (m *textMachine) run(args []string, stdin string) (out, errs string, exit int) {
	var stdout, stderr bytes.Buffer
	p := ipvsadm.Program{Name: "/usr/sbin/ipvsadm", Backend: m.control, Names: recordedNames{}, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr}
	exit = p.Run(context.Background(), args)
	return stdout.String(), stderr.String(), exit
}

// must carries out a command line that cannot fail, and returns what it prints.
func (m *textMachine) must(line string) string {
	m.t.Helper()
	out, errs, exit := m.run(strings.Fields(line), "")
	if exit != 0 || errs != "" {
		m.t.Fatalf("ipvsadm %s: exit %d, %s", line, exit, errs)
	}
	return out
}

// idleMachine has the services of 00-setup.txt.
func idleMachine(t *testing.T) *textMachine {
	t.Helper()
	m := newTextMachine(t)
	for l := range strings.Lines(readText(t, "00-setup.txt")) {
		if line, ok := strings.CutPrefix(l, "ipvsadm "); ok {
			m.must(line)
		}
	}
	return m
}

// busyMachine has the traffic of 00-setup.txt as well, whose packets must go where they went. The recorder then waited: until
// the first of the connections has as long to live as expiry says, if it says so, and in any case for five seconds or so, which
// three ticks of the estimator are in.
func busyMachine(t *testing.T, expiry *time.Duration) *textMachine {
	t.Helper()
	m := idleMachine(t)
	m.Pass(1900 * time.Millisecond) // the next tick is near
	b := NewBuilder(new(Trace))
	packets := 0
	for l := range strings.Lines(readText(t, "00-setup.txt")) {
		text, ok := strings.CutPrefix(l, "# {")
		if !ok {
			continue
		}
		var s Step
		if err := json.Unmarshal([]byte("{"+text), &s); err != nil {
			t.Fatal(err)
		}
		wire, frame, err := b.Frame(&s)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := Briefly(&s, m.Inject(wire, frame)), (Brief{To: s.To, Fwd: s.Fwd}); got != want {
			t.Errorf("%s of %s to %s went to %+v, want %+v", s.Pkt, s.C, s.V, got, want)
		}
		packets++
	}
	if packets != 23 {
		t.Errorf("%d packets, want 23", packets)
	}
	age := 5500 * time.Millisecond
	if expiry != nil {
		age = 59500*time.Millisecond - *expiry // a handshake has 60 s
	}
	m.Pass(age)
	return m
}

var expiryText = regexp.MustCompile(`TCP 00:(\d\d) +SYN_RECV`)

// firstExpiry is how long the first connection had still to live in a listing of connections, nil if the file is none.
func firstExpiry(t *testing.T, file string) *time.Duration {
	t.Helper()
	found := expiryText.FindStringSubmatch(readText(t, file))
	if found == nil {
		return nil
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	left := time.Duration(n) * time.Second
	return &left
}

// playUpTo carries out the commands of the files of a pattern in their order, up to one of them, which decides.
func (m *textMachine) playUpTo(pattern, last string) {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(texts, pattern))
	if err != nil {
		m.t.Fatal(err)
	}
	slices.Sort(files)
	m.saved = m.must("-S -n")
	for _, path := range files {
		file := filepath.Base(path)
		m.decides = file == last
		m.play(file)
		if file == last {
			return
		}
	}
}

// play carries out the commands of a file and compares.
func (m *textMachine) play(file string) {
	m.t.Helper()
	for _, tr := range transcripts(m.t, file) {
		var out, errs string
		var exit int
		switch tr.program {
		case "ipvsadm":
			out, errs, exit = m.run(tr.args, tr.in)
		case "ps": // of the sync daemons, which were threads of the kernel called by their role
			out = m.threads()
		case "": // roundtrip-7-same.txt has a statement, and no command
			out = "save before == save after: " + map[bool]string{true: "True", false: "False"}[m.saved == m.must("-S -n")] + "\n"
		default:
			m.t.Fatalf("%s: nothing stands for %s", file, tr.program)
		}
		switch {
		case slices.Contains(tr.args, "--nosort"):
			out, tr.out = ordered(out), ordered(tr.out)
		case strings.HasPrefix(tr.out, "IPVS connection entries"): // in the order of a hash table
			out, tr.out = sortedLines(out), sortedLines(tr.out)
		}
		if m.decides && (out != tr.out || errs != tr.errs || exit != tr.exit) {
			m.t.Errorf("%s: %s %q\n got exit %d, %q\n%swant exit %d, %q\n%s", file, tr.program, tr.args, exit, errs, out, tr.exit, tr.errs, tr.out)
		}
	}
}

// threads names the sync daemons as the kernel called their threads: role, syncid and number.
func (m *textMachine) threads() (names string) {
	daemons, err := m.control.Daemons(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, d := range daemons {
		names += "ipvs-" + d.Role[:1] + ":" + strconv.Itoa(int(d.SyncID)) + ":0\n"
	}
	return names
}

func checkZeroed(t *testing.T, file string) {
	m := busyMachine(t, nil)
	m.must("-A -t 10.9.0.100:8000 -s rr")
	m.must("-Z")
	m.play(file)
}

// checkSaveScript calls ipvsadm-save by its name, through uvsd's socket. The recording ends with the first service.
func checkSaveScript(t *testing.T, file string) {
	m := idleMachine(t)
	tr := transcripts(t, file)[0]
	var out, errs strings.Builder
	exit := ipvsadm.Main(t.Context(), append([]string{"/sbin/" + tr.program}, tr.args...), ipvsadm.System{
		Getenv: func(string) string { return m.serve() }, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
	})
	if !strings.HasPrefix(out.String(), tr.out) || errs.String() != tr.errs || exit != tr.exit {
		t.Errorf("%s prints\n%s%s, exit %d; want first\n%s", tr.program, &out, &errs, exit, tr.out)
	}
}

// serve serves the director's API on a socket until the test ends, and returns its path.
func (m *textMachine) serve() string {
	m.t.Helper()
	socket := filepath.Join(m.t.TempDir(), "uvsd.sock")
	l, err := api.Listen(socket, "")
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, m.control) }()
	m.t.Cleanup(func() { cancel(); <-done })
	return socket
}
