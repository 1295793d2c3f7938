package conntrack

import "uvs/packet"

// engineIndex finds templates by the data that a persistence engine tells clients apart by. There are few of them beside
// the connections, so that they may have maps and text on the heap. Its shard's lock guards it.
type engineIndex struct {
	slots map[engineKey]uint32
	data  map[uint32]string // by slot, as long as the template lives, found or put aside
}

type engineKey struct {
	client, virtual packet.Addr
	port            uint16
	proto           uint8
	data            string
}

func (x *engineIndex) find(s *shard, k *Key, data []byte) (slot uint32, e *entry) {
	client, virtual := k.addresses()
	slot = x.slots[engineKey{client, virtual, k.oport, k.proto, string(data)}] // not allocated for a mere lookup
	if slot == 0 {
		return 0, nil
	}
	return slot, s.entry(slot)
}

func (x *engineIndex) add(s *shard, slot uint32, e *entry, data []byte) {
	if x.slots == nil {
		x.slots, x.data = make(map[engineKey]uint32), make(map[uint32]string)
	}
	text := string(data)
	x.slots[x.key(s, slot, e, text)] = slot
	x.data[slot] = text
}

func (x *engineIndex) key(s *shard, slot uint32, e *entry, data string) engineKey {
	client, virtual, _ := s.tuple(slot, e)
	return engineKey{client, virtual, e.virtualPort(), e.proto(), data}
}

// remove makes a template not be found any more.
func (x *engineIndex) remove(s *shard, slot uint32, e *entry) {
	delete(x.slots, x.key(s, slot, e, x.data[slot]))
}

// forget forgets the data of a slot, if it has any.
func (x *engineIndex) forget(slot uint32) {
	if len(x.data) > 0 {
		delete(x.data, slot)
	}
}

// TemplateData returns the data from a persistence engine of the template that id names, or nothing.
func (t *Table) TemplateData(id ID) string {
	s := t.templateShard(uint32(id))
	if s == nil || id&templateFlag == 0 {
		return ""
	}
	s.lock()
	defer s.unlock()
	if s.template(id) == nil {
		return ""
	}
	return s.engine.data[uint32(id)%maxSlots]
}
