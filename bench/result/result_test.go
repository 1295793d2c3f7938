package result

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func document() *File {
	x := 4.0
	return &File{
		Kind: Sim, Title: "a title", Started: time.Unix(1000, 0).UTC(), Took: 2,
		Figures: []Figure{{Name: "p99", Title: "99th percentile", Unit: "s", Better: Less}},
		Scenarios: []Scenario{{Name: "equal", Title: "Equal servers", Axis: "clients", Rows: []Row{
			{Subject: "rr", X: &x, Values: map[string]Value{"p99": {Value: 2, Low: 1, High: 3, N: 5}}},
			{Subject: "wlc", Values: map[string]Value{"p99": Single(1)}},
			{Subject: "rr", Error: "it broke"},
		}}},
	}
}

func TestDocumentComesBackAsItWasWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.json")
	want := document()
	if err := want.Write(name); err != nil {
		t.Fatal(err)
	}
	got, err := Read(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v, wrote\n%+v", got, want)
	}
	if s := got.Scenarios[0].Subjects(); !reflect.DeepEqual(s, []string{"rr", "wlc"}) {
		t.Errorf("subjects %v", s)
	}
}

func TestWrongDocumentsAreRefusedWithTheirPlace(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"format": "else"}`, `format is "else"`},
		{`{"format": "uvsbench-result", "version": 2}`, "version 2"},
		{"{\n  \"format\": 1,\n}", "line 3, column 1"},
		{"{\"format\": \"uvsbench-result\",\n \"version\": 1, \"figures\": 7}", "line 2, column"},
		{`{"format": "uvsbench-result", "version": 1, "scenarios": [{"name": "s", "rows": [{"subject": "rr", "values": {"p": {}}}]}]}`, `figure "p"`},
		{`{"format": "uvsbench-result", "version": 1, "scenarios": [{"name": "s", "curves": [{"x": [1], "y": []}]}]}`, "1 x and 0 y"},
	} {
		if _, err := Decode([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Decode(%s): %v, want %q in it", c.text, err, c.want)
		}
	}
}
