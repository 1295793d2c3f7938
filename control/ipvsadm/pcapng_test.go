package ipvsadm

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/gopacket/pcapgo"
)

// TestPcapngIsReadBackByAnotherReader reads frames, times and interfaces with gopacket; comments it cannot read, tshark in e2e
// does.
func TestPcapngIsReadBackByAnotherReader(t *testing.T) {
	var file bytes.Buffer
	w, err := newPcapng(&file)
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		data, iface string
		at          int64
	}
	var want []record
	for _, e := range traced() {
		if e.Verdict == "" {
			continue
		}
		if err := w.event(&e); err != nil {
			t.Fatal(err)
		}
		want = append(want, record{string(e.In.Data), e.In.Interface, e.Time.UnixNano()})
		for _, f := range e.Out {
			want = append(want, record{string(f.Data), f.Interface, e.Time.UnixNano()})
		}
	}
	if file.Len()%4 != 0 {
		t.Errorf("%d bytes, no multiple of 4", file.Len())
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range want {
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		iface, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if got := (record{string(data), iface.Name, info.Timestamp.UnixNano()}); got != want {
			t.Errorf("frame %d is %+v, want %+v", i+1, got, want)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("behind the last frame: %v, want EOF", err)
	}
}
