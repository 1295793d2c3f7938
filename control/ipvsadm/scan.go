package ipvsadm

import "strings"

// scanner takes a command line apart as popt does: options and other arguments in any order, short options in one word
// with the last one's value attached, after "=" or in the next word, long ones never abbreviated, all after "--" taken as
// it is.
type scanner struct {
	args []string // not looked at yet
	rest []string // arguments that are no options
	word string   // the word in hand, for messages: once a value was taken from the next word, that
	tail string   // what of it is still to be read as short options
}

// usageError is a complaint of popt's. ipvsadm reports it, but does not give up on the lines that follow in -R.
type usageError struct{ word, text string }

func (e *usageError) Error() string { return e.word + ": " + e.text }

const (
	textUnknown = "unknown option"
	textMissing = "missing argument"
	textNoValue = "option does not take an argument"
)

// next returns the next option with its value, and whether it has one. At the end w is nil.
func (s *scanner) next() (w *word, value string, has bool, err error) {
	if s.tail != "" {
		return s.short()
	}
	for len(s.args) > 0 {
		s.word, s.args = s.args[0], s.args[1:]
		switch {
		case s.word == "--":
			s.rest = append(s.rest, s.args...)
			s.args = nil
		case len(s.word) < 2 || s.word[0] != '-':
			s.rest = append(s.rest, s.word)
		case s.word[1] == '-':
			return s.long()
		default:
			s.tail = s.word[1:]
			return s.short()
		}
	}
	return nil, "", false, nil
}

func (s *scanner) long() (w *word, value string, has bool, err error) {
	name, value, has := strings.Cut(s.word[2:], "=")
	for i := range wordTable {
		if wordTable[i].long == name && name != "" {
			return s.finish(&wordTable[i], value, has)
		}
	}
	return nil, "", false, &usageError{s.word, textUnknown}
}

func (s *scanner) short() (w *word, value string, has bool, err error) {
	c := s.tail[0]
	s.tail = s.tail[1:]
	for i := range wordTable {
		w := &wordTable[i]
		if w.short != c || c == 0 {
			continue
		}
		if s.tail == "" || (w.arg == noValue && s.tail[0] != '=') {
			return s.finish(w, "", false)
		}
		value = strings.TrimPrefix(s.tail, "=")
		s.tail = ""
		return s.finish(w, value, true)
	}
	return nil, "", false, &usageError{s.word, textUnknown}
}

// finish completes an option with the next word as its value where it needs one and has none, or may have one and the
// next word does not look like an option.
func (s *scanner) finish(w *word, value string, has bool) (*word, string, bool, error) {
	switch {
	case has && w.arg == noValue:
		return nil, "", false, &usageError{s.word, textNoValue}
	case has, w.arg == noValue:
		return w, value, has, nil
	case len(s.args) > 0 && (w.arg == needsValue || !strings.HasPrefix(s.args[0], "-")):
		value, s.args = s.args[0], s.args[1:]
		s.word = value
		return w, value, true, nil
	case w.arg == needsValue:
		return nil, "", false, &usageError{s.word, textMissing}
	default:
		return w, "", false, nil
	}
}
