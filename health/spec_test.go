package health

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDecodeFillsInDefaults(t *testing.T) {
	s, err := Decode([]byte(`{"kind":"tcp"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{Kind: "tcp", ID: "tcp", Interval: Duration(2 * time.Second), Timeout: Duration(time.Second), Retry: Duration(2 * time.Second),
		Rise: 2, Fall: 2, Jitter: 10, WarmUp: Duration(time.Second), Start: StartUp, Via: Auto, InBand: true}
	if s.Settings != want {
		t.Errorf("got  %+v\nwant %+v", s.Settings, want)
	}
	if b, err := json.Marshal(s); err != nil || string(b) != `{"kind":"tcp"}` {
		t.Errorf("marshalled: %s, %v; the defaults aren't what was set", b, err)
	}
}

func TestWordsAndJSONMeanTheSame(t *testing.T) {
	words, err := FromWords("udp", []string{`request=\x00ping`, "expect=pong", "interval=500ms", "fall=3", "port=5353", "wait=1"})
	if err != nil {
		t.Fatal(err)
	}
	typed, err := Decode([]byte(`{"kind":"udp","request":"\\x00ping","expect":"pong","interval":0.5,"fall":3,"port":5353,"wait":"1s"}`))
	if err != nil {
		t.Fatal(err)
	}
	if words.Settings != typed.Settings || !reflect.DeepEqual(words.Options, typed.Options) {
		t.Errorf("words %+v %+v\nJSON  %+v %+v", words.Settings, words.Options, typed.Settings, typed.Options)
	}
	if u := words.Options.(*UDP); string(u.request) != "\x00ping" || time.Duration(u.Wait) != time.Second {
		t.Errorf("%+v", u)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{``, "an object"},
		{`null`, "an object"},
		{`[]`, "an object"},
		{`{}`, "kind is missing"},
		{`{"kind":"tpc"}`, "did you mean tcp?"},
		{`{"kind":"tcp","intervall":"1s"}`, "intervall: a check of kind tcp has no such option (did you mean interval?)"},
		{`{"kind":"udp","reqeust":"x"}`, "did you mean request?"},
		{`{"kind":"tcp","request":"x"}`, "request: a check of kind tcp has no such option"},
		{`{"kind":"tcp","interval":"soon"}`, `"soon" is no duration`},
		{`{"kind":"tcp","interval":"1ms"}`, "it is from 10ms to 24h"},
		{`{"kind":"tcp","interval":"-1s"}`, "it is from"},
		{`{"kind":"tcp","timeout":0}`, "timeout=0s"},
		{`{"kind":"tcp","rise":0}`, "rise=0"},
		{`{"kind":"tcp","fall":"many"}`, "fall=many: it is a whole number"},
		{`{"kind":"tcp","port":"70000"}`, "port=70000: it is a number from 0 to 65535"},
		{`{"kind":"tcp","port":0}`, "port=0"},
		{`{"kind":"tcp","jitter":99}`, "jitter=99"},
		{`{"kind":"tcp","via":"moon"}`, `via="moon"`},
		{`{"kind":"tcp","start":"maybe"}`, "start="},
		{`{"kind":"tcp","id":"a b"}`, "id="},
		{`{"kind":"tcp","id":null}`, "a value is missing"},
		{`{"kind":"udp","match":"("}`, "match: "},
		{`{"kind":"udp","request":"\\q"}`, `\q stands for nothing`},
		{`{"kind":"udp","request":"\\x1"}`, `\x wants two`},
		{`{"kind":"tcp","` + strings.Repeat("x", 1<<20) + `":1}`, "no such option"},
	} {
		_, err := Decode([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.80s: %.200v, want %q", c.in, err, c.says)
		}
	}
	for _, w := range []string{"interval", "=1", ""} {
		if _, err := FromWords("tcp", []string{w}); err == nil {
			t.Errorf("the word %q is taken", w)
		}
	}
}

// A kind's option may not have the name of a setting, since they stand beside each other, and each must be one that JSON,
// YAML and words can give.
func TestKindsOptionsStandBesideTheSettings(t *testing.T) {
	settings := fieldsOf(new(Settings))
	for name, construct := range kinds {
		p := construct()
		if p.Kind() != name {
			t.Errorf("the kind %s calls itself %s", name, p.Kind())
		}
		for option := range fieldsOf(p) {
			if _, taken := settings[option]; taken {
				t.Errorf("the kind %s has an option %s, which every check has as a setting", name, option)
			}
		}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(p).Elem()) {
			if f.IsExported() && !f.Anonymous && f.Tag.Get("json") == "" {
				t.Errorf("the kind %s has an exported field %s without a name in JSON", name, f.Name)
			}
		}
	}
}

func TestDurationText(t *testing.T) {
	for in, want := range map[string]string{"1": "1s", "0.25": "250ms", "90s": "1m30s", "120": "2m", "24h": "24h", "0": "0s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || d.String() != want {
			t.Errorf("%q is %v, %v; want %s", in, d, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, kind := range Kinds() {
		f.Add([]byte(`{"kind":"` + kind + `","interval":"1s","rise":"3"}`))
	}
	f.Add([]byte(`{"kind":"udp","request":["a","b"],"expect":{},"match":".*","wait":5,"jitter":1e9}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			if s != nil {
				t.Error("a spec beside an error")
			}
			return
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(b)
		if err != nil || again.Settings != s.Settings {
			t.Fatalf("%s is %+v; written and read again %v, %+v", data, s.Settings, err, again)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(again.given)), slices.Sorted(maps.Keys(s.given))) {
			t.Fatalf("%s became %s", data, b)
		}
	})
}
