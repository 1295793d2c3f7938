package sip

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

const first = "INVITE sip:bob@example.com SIP/2.0\r\n"

var rows = []struct{ name, message, want string }{
	{"of RFC 3261", first + "Via: SIP/2.0/UDP pc33\r\nCall-ID: a84b4c76e66710@pc33.example.com\r\nCSeq: 1 INVITE\r\n\r\n", "a84b4c76e66710@pc33.example.com"},
	{"compact", first + "i: k1\r\n", "k1"},
	{"compact in capitals", first + "I:k1\r\n", "k1"},
	{"any case, blanks", first + "cAlL-iD \t:  \tx@y\r\n", "x@y"},
	{"LF alone", "INVITE\nCall-ID: x\n", "x"},
	{"CR alone", "INVITE\rCall-ID: x\r", "x"},
	{"value in the next line", first + "Call-ID:\r\n x\r\n", "x"},
	{"colon in the next line", first + "Call-ID\r\n\t: x\r\n", "x"},
	{"odd characters", first + "Call-ID: -.!%*_+`'~()<>:\\\"/[]?{}@{}\r\n", "-.!%*_+`'~()<>:\\\"/[]?{}@{}"},
	{"the first counts", first + "i: a\r\nCall-ID: b\r\n", "a"},
	{"a bad one, then a good one", first + "Call-ID: @x\r\ni: b\r\n", "b"},
	{"no host, then a good one", first + "Call-ID: x@\r\ni: b\r\n", "b"},
	{"255 bytes", first + "i: " + strings.Repeat("x", 255) + "\r\n", strings.Repeat("x", 255)},
	{"256 bytes", first + "i: " + strings.Repeat("x", 256) + "\r\n", ""},
	{"Latin-1 letters", first + "i: \xe9\xc9\r\n", "\xe9\xc9"},
	{"UTF-8", first + "i: \xc3\xa9\r\n", ""},
	{"nothing", "", ""},
	{"none", first + "\r\n", ""},
	{"in the first line", "Call-ID: x\r\n", ""},
	{"in a continuation line", first + "Via: y\r\n Call-ID: x\r\n", ""},
	{"not at the start of a line", first + "X-Call-ID: x\r\n", ""},
	{"line doesn't end", first + "Call-ID: x", ""},
	{"two words", first + "Call-ID: x y\r\n", ""},
	{"blank behind", first + "Call-ID: x \r\n", ""},
	{"two @", first + "Call-ID: x@y@z\r\n", ""},
	{"no colon", first + "Call-ID x\r\ni: y\r\n", ""},
	{"begins like one", first + "Call-IDs: x\r\ni: y\r\n", ""},
	{"begins like a compact one", first + "i= x\r\ni: y\r\n", ""},
	{"another header with an i", first + "Info: x\r\ni: y\r\n", "y"},
	{"empty", first + "Call-ID:\r\n\r\n", ""},
	{"empty, at the end", first + "Call-ID:", ""},
	{"cut in the name", first + "Call-I", ""},
	{"cut behind the compact name", first + "i", ""},
	{"cut behind CR", first + "i: x\r", "x"},
	{"behind an empty line that LF ends, as in the kernel", "INVITE\n\ni: x\nCall-ID: y\n", "y"},
	{"in the body, where no header has it", first + "Via: y\r\n\r\ni: x\r\n", "x"},
}

func TestCallID(t *testing.T) {
	for _, r := range rows {
		id, ok := CallID([]byte(r.message))
		if string(id) != r.want || ok != (r.want != "") {
			t.Errorf("%s: %q, %v, want %q", r.name, id, ok, r.want)
		}
	}
}

// TestRecordedCalls reads the datagrams of the recording of --pe sip and wants the Call-IDs that IPVS kept.
func TestRecordedCalls(t *testing.T) {
	b, err := os.ReadFile("../../testdata/golden/traces/fwd-persist-sip.json")
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		Steps []struct {
			C, Payload, To, Pkt string
			Conns               [][]any
		}
	}
	if err := json.Unmarshal(b, &trace); err != nil {
		t.Fatal(err)
	}
	got, want := map[string]bool{}, map[string]bool{}
	for _, s := range trace.Steps {
		for _, c := range s.Conns {
			if len(c) == 8 {
				client, _, _ := strings.Cut(c[1].(string), ":")
				want[client+" "+c[7].(string)] = true
			}
		}
		if s.Pkt == "" {
			continue
		}
		id, ok := CallID([]byte(s.Payload))
		if ok != (s.To != "drop") {
			t.Errorf("%s: CallID of %q = %v, IPVS: %s", s.C, s.Payload, ok, s.To)
		}
		if ok {
			client, _, _ := strings.Cut(s.C, ":")
			got[client+" "+string(id)] = true
		}
	}
	if len(want) < 5 || len(got) != len(want) {
		t.Errorf("%d calls %v, want %v", len(got), got, want)
	}
	for k := range want {
		if !got[k] {
			t.Errorf("no call %s", k)
		}
	}
}

// start and whole are the twin for messages without continuation and empty lines: what the first line that begins like a Call-ID header must
// look like, behind lines that don't.
var (
	start = regexp.MustCompile(`(?i)^(call-id|i[^a-z\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{ff}])`)
	whole = regexp.MustCompile(`(?i)^(?:call-id|i)[ \t]*:[ \t]*([-.!%*_+` + "`" + `'~()<>:\\"/\[\]?{}a-z0-9\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{ff}]+(?:@[-.!%*_+` + "`" + `'~()<>:\\"/\[\]?{}a-z0-9\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{ff}]+)?)$`)
)

func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

func FuzzCallID(f *testing.F) {
	for _, r := range rows {
		f.Add([]byte(r.message))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, ok := CallID(b)
		if ok && (len(id) == 0 || len(id) > MaxCallID) {
			t.Fatalf("%q: %q", b, id)
		}
		text := latin1(b)
		if strings.Contains(text, "\r") || strings.Contains(text, "\n\n") || strings.Contains(text, "\n ") || strings.Contains(text, "\n\t") || !strings.HasSuffix(text, "\n") {
			return
		}
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		for _, line := range lines[1:] {
			if !start.MatchString(line + "\n") {
				continue
			}
			m := whole.FindStringSubmatch(line)
			if m == nil || len([]rune(m[1])) > MaxCallID {
				return // a bad one; what follows is the kernel's own affair
			}
			if !ok || latin1(id) != m[1] {
				t.Fatalf("%q: %q, %v, want %q", b, id, ok, m[1])
			}
			return
		}
		if ok {
			t.Fatalf("%q: %q, want none", b, id)
		}
	})
}

func TestCallIDAllocatesNothing(t *testing.T) {
	b := []byte(rows[0].message)
	if n := testing.AllocsPerRun(100, func() { CallID(b) }); n != 0 {
		t.Errorf("%v allocations per CallID, want 0", n)
	}
}

func BenchmarkCallID(b *testing.B) {
	m := []byte(rows[0].message)
	b.ReportAllocs()
	for b.Loop() {
		CallID(m)
	}
}
