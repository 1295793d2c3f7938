package config

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzParse gives the decoder whatever there is. What it accepts must come out the same when it is written and read again.
func FuzzParse(f *testing.F) {
	for _, c := range readWrong(f) {
		f.Add([]byte(strings.ReplaceAll(c.data, "→", "\t")))
	}
	f.Add([]byte("services:\n- {name: web, address: [192.0.2.1-192.0.2.3, '2001:db8::1'], port: [80, 90-93], persistence: 5m, method: nat, servers: [web.example, '[2001:db8::2]:80']}\n"))
	f.Add([]byte("x: &a\n  interval: 5s\nchecks:\n- {template: c, kind: http, <<: *a}\nservices:\n- {fwmark: 1, checks: c, health: {quorum: 2}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		file, err := Parse("f", data)
		if err != nil {
			if errs, ok := err.(Errors); !ok || len(errs) == 0 {
				t.Fatalf("Parse(%q) fails with %v, which is no list of errors", data, err)
			}
			return
		}
		again, err := Marshal(&file.Config)
		if err != nil {
			t.Fatalf("Marshal of %q: %v", data, err)
		}
		second, err := Parse("f", again)
		if err != nil {
			t.Fatalf("Parse accepts\n%s\nbut not what Marshal makes of it:\n%s\n%v", data, again, err)
		}
		third, err := Marshal(&second.Config)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("written twice, it differs (%v):\n%s\n%s", err, again, third)
		}
	})
}
