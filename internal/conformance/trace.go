// Package conformance replays what the real IPVS was recorded doing (testdata/golden) through uvs's own packet path and
// control: the same commands and frames in, on in-memory links and in virtual time, and then the same server, rewritten
// bytes, counts, states and listings out. It holds no decision of its own; the recordings are the judge.
package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Trace is one recorded scenario; its format is described in testdata/golden/README.md.
type Trace struct {
	Name     string         `json:"name"`
	Setup    []string       `json:"setup"`
	SetupSh  []string       `json:"setup_sh"`
	Sysctl   map[string]int `json:"sysctl"`
	Detail   string         `json:"detail"`
	Gap      float64        `json:"gap"`
	FirstID  *uint16        `json:"id0"`
	Steps    []Step         `json:"steps"`
	FilePath string         `json:"-"`
}

// Step is one step with what was recorded of it. Which fields are there depends on its kind.
type Step struct {
	// A packet.
	Pkt     string  `json:"pkt"`
	Dir     string  `json:"dir"`
	C       string  `json:"c"`
	V       string  `json:"v"`
	S       string  `json:"s"`
	D       string  `json:"d"`
	Src     string  `json:"src"`
	Dst     string  `json:"dst"`
	Len     *int    `json:"len"`
	Payload *string `json:"payload"`
	TTL     *uint8  `json:"ttl"`
	TOS     uint8   `json:"tos"`
	Flow    uint32  `json:"flow"`
	DF      *int    `json:"df"`
	Seq     *uint32 `json:"seq"`
	Ack     *uint32 `json:"ack"`
	IPID    *uint16 `json:"ipid"`
	IPOpts  string  `json:"ipopts"`
	BadCsum int     `json:"badcsum"`
	Chunks  string  `json:"chunks"`
	NoCsum  bool    `json:"nocsum"`
	Part    int     `json:"part"`
	FS      int     `json:"fs"`
	Type    *uint8  `json:"type"`
	Code    *uint8  `json:"code"`
	MTU     *uint16 `json:"mtu"`
	Quote   *int    `json:"quote"`
	EchoID  *uint16 `json:"eid"`
	Orig    *Step   `json:"orig"`
	Hex     string  `json:"hex"`
	Detail  string  `json:"detail"`
	Wait    float64 `json:"wait"`
	// What became of it.
	To   string           `json:"to"`
	Fwd  string           `json:"fwd"`
	From string           `json:"from"`
	NOut int              `json:"nout"`
	In   string           `json:"in"`
	Out  []map[string]any `json:"out"`
	// Commands, listings and the passing of time.
	IPVS   *string            `json:"ipvs"`
	Stdin  string             `json:"stdin"`
	Show   *string            `json:"show"`
	Sh     *string            `json:"sh"`
	Sleep  float64            `json:"sleep"`
	T      *float64           `json:"t"`
	Note   *string            `json:"note"`
	Stats  *json.RawMessage   `json:"stats"`
	Text   []string           `json:"text"`
	RC     int                `json:"rc"`
	Err    string             `json:"err"`
	Conn1  [][]any            `json:"conn1"`
	Conns  [][]any            `json:"conns"`
	Counts map[string][][]any `json:"counts"`
	raw    map[string]json.RawMessage
}

// UnmarshalJSON reads a step and remembers which keys it had.
func (s *Step) UnmarshalJSON(b []byte) error {
	type plain Step
	if err := json.Unmarshal(b, &s.raw); err != nil {
		return err
	}
	return json.Unmarshal(b, (*plain)(s))
}

// Recording is the step with all that was recorded of it.
func (s *Step) Recording() string { return jsonText(s.raw) }

// has says that the recording has a key at all.
func (s *Step) has(key string) bool { _, ok := s.raw[key]; return ok }

// ReadTrace reads one recorded scenario.
func ReadTrace(path string) (*Trace, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := &Trace{FilePath: path}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if t.Name == "" {
		t.Name = strings.TrimSuffix(filepath.Base(path), ".json")
	}
	return t, nil
}
