package conntrack

import (
	"strings"
	"testing"

	"uvs/packet"
	"uvs/service"
)

// The rows are those of IPVS as it was observed: direction and event, then the next state for each state of the header.
const usualTable = `
	               NO ES SS SR FW TW CL CW LA LI SA
	in syn         SR ES ES SR SR SR SR SR SR SR SR
	in fin         CL CW SS TW TW TW CL CW LA LI TW
	in ack         ES ES SS ES FW TW CL CW CL LI ES
	in rst         CL CL CL SR CL CL CL CL LA LI SR
	out syn        SS ES SS SR SS SS SS SS SS LI SR
	out fin        TW FW SS TW FW TW CL TW LA LI TW
	out ack        ES ES SS ES FW TW CL CW LA ES ES
	out rst        CL CL SS CL CL TW CL CL CL CL CL
	only syn       SR ES ES SR SR SR SR SR SR SR SR
	only fin       CL FW SS TW FW TW CL CW LA LI TW
	only ack       ES ES SS ES FW TW CL CW CL LI ES
	only rst       CL CL CL SR CL CL CL CL LA LI CL
`

// What secure_tcp changes; the other rows are the same.
const secureRows = `
	               NO ES SS SR FW TW CL CW LA LI SA
	in syn         SR ES ES SR SR SR SR SR SR SR SA
	in fin         CL CW SS TW TW TW CL CW LA LI SA
	in ack         ES ES SS SR FW TW CL CW CL LI SA
	in rst         CL CL CL SR CL CL CL CL LA LI CL
	out syn        SS ES SS SA SS SS SS SS SS LI SA
	only syn       SA ES ES SR SA SA SA SA SA SA SA
`

var shortStates = map[string]State{
	"NO": None, "ES": Established, "SS": SynSent, "SR": SynRecv, "FW": FinWait, "TW": TimeWait, "CL": Close,
	"CW": CloseWait, "LA": LastAck, "LI": Listen, "SA": SynAck,
}

// textTable is a state table by "direction event" and state, read from text.
type textTable map[string]map[State]State

func readTable(texts ...string) textTable {
	table := textTable{}
	for _, text := range texts {
		var header []string
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			switch len(words) {
			case 11:
				header = words
			case 13:
				row := map[State]State{}
				for i, s := range words[2:] {
					row[shortStates[header[i]]] = shortStates[s]
				}
				table[words[0]+" "+words[1]] = row
			}
		}
	}
	return table
}

func TestTCPStatesAreThoseOfIPVS(t *testing.T) {
	columns := map[string]int{"in": fromClient, "out": fromServer, "only": clientOnly}
	events := map[string]tcpEvent{"syn": eventSyn, "fin": eventFin, "ack": eventAck, "rst": eventRst}
	for _, tt := range []struct {
		name string
		got  *tcpTable
		want textTable
	}{
		{"usual", &tcpStates, readTable(usualTable)},
		{"secure_tcp", &secureTCPStates, readTable(usualTable, secureRows)},
	} {
		if len(tt.want) != 12 {
			t.Fatalf("%s: %d rows read, want 12", tt.name, len(tt.want))
		}
		for row, next := range tt.want {
			dir, event, _ := strings.Cut(row, " ")
			for state, want := range next {
				if got := tt.got[columns[dir]][events[event]][state]; got != want {
					t.Errorf("%s: %s in %v goes to %v, want %v", tt.name, row, state, got, want)
				}
			}
		}
		for column := range numColumns {
			for state := range numTCPStates {
				if got := tt.got[column][eventNone][state]; got != Close {
					t.Errorf("%s: no flags in %v goes to %v, want CLOSE", tt.name, State(state), got)
				}
			}
		}
	}
}

func TestEventPrecedence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uint8
		want  tcpEvent
	}{
		{"syn", packet.TCPSyn, eventSyn},
		{"syn+ack", packet.TCPSyn | packet.TCPAck, eventSyn},
		{"syn+fin", packet.TCPSyn | packet.TCPFin, eventSyn},
		{"fin+ack", packet.TCPFin | packet.TCPAck, eventFin},
		{"push+ack", packet.TCPPsh | packet.TCPAck, eventAck},
		{"rst+ack", packet.TCPRst | packet.TCPAck, eventRst},
		{"all", 0xff, eventRst},
		{"none", 0, eventNone},
		{"urgent and push", packet.TCPUrg | packet.TCPPsh, eventNone},
		{"ece+cwr+ack", 0xc0 | packet.TCPAck, eventAck},
	} {
		if got := tcpEvents[tt.flags&31]; got != tt.want {
			t.Errorf("%s: event %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestStateNames(t *testing.T) {
	want := []string{
		"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
		"LISTEN", "SYNACK", "UDP", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE", "C-ECHOED", "ESTABLISHED",
		"S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED", "NONE", "ASSURED", "ERR!",
	}
	for i, name := range want {
		if got := State(i).String(); got != name {
			t.Errorf("State(%d).String() = %q, want %q", i, got, name)
		}
	}
}

func TestAnOutputPacketEndsInputOnly(t *testing.T) {
	w := newWorld(t, Config{})
	rs := w.server(t, "10.1.0.11:80", service.Local)
	f := flow(service.TCP, "192.0.2.1:1000", "10.9.0.100:80")
	var c Conn
	w.open(f, rs, &c)
	if c.Flags&NoOutput == 0 {
		t.Fatal("a Local connection begins without NoOutput")
	}
	a := answer(f, rs)
	if o := w.Out(&a, packet.TCPSyn|packet.TCPAck, w.now, &c); o != Hit || c.Flags&NoOutput != 0 || c.Dir != Out {
		t.Errorf("Out = %v, flags %#x, dir %v; want hit without NoOutput", o, c.Flags, c.Dir)
	}
	w.In(&f, packet.TCPAck, w.now, &c)
	w.In(&f, packet.TCPFin|packet.TCPAck, w.now, &c)
	if c.State != CloseWait {
		t.Errorf("after the client's FIN: %v, want CLOSE_WAIT as for a server that is seen", c.State)
	}
}
