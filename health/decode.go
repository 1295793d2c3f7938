package health

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Decode makes a Spec of a JSON object with the field "kind" and any of Settings and of the kind's options. What the kind
// doesn't have is refused, with the name that may have been meant. As command lines know text alone, each value may be given
// as text, whatever its type, and a list of one as its element. It comes back prepared, defaults filled in.
func Decode(data []byte) (*Spec, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil || given == nil {
		return nil, errors.New("a check is an object with the field kind and the options of that kind")
	}
	var kind string
	if err := assign(reflect.ValueOf(&kind).Elem(), given["kind"]); err != nil || kind == "" {
		return nil, fmt.Errorf("kind is missing: it is one of %s", strings.Join(Kinds(), ", "))
	}
	construct, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("kind=%s: there is no such kind of check%s; there are %s", kind, hint(kind, Kinds()), strings.Join(Kinds(), ", "))
	}
	s := &Spec{Options: construct(), given: given}
	fields := fieldsOf(&s.Settings)
	maps.Copy(fields, fieldsOf(s.Options))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		f, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("%s: a check of kind %s has no such option%s", name, kind, hint(name, slices.Sorted(maps.Keys(fields))))
		}
		if err := assign(f, given[name]); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", name, shown(given[name]), err)
		}
	}
	if err := s.Settings.prepare(given, s.Options); err != nil {
		return nil, err
	}
	if err := s.Options.Prepare(); err != nil {
		return nil, err
	}
	return s, nil
}

// FromWords makes a Spec of a kind and words of the form name=value, as uvsadm takes them. A name that comes twice is a list.
func FromWords(kind string, words []string) (*Spec, error) {
	data, err := WordsJSON(kind, words)
	if err != nil {
		return nil, err
	}
	return Decode(data)
}

// WordsJSON is the object that FromWords decodes: every value is text.
func WordsJSON(kind string, words []string) ([]byte, error) {
	given := map[string]any{"kind": kind}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q: options have the form name=value", w)
		}
		switch had := given[name].(type) {
		case nil:
			given[name] = value
		case string:
			given[name] = []string{had, value}
		case []string:
			given[name] = append(had, value)
		}
	}
	return json.Marshal(given)
}

// fieldsOf are a struct's fields by their names in JSON, with those of structs that it embeds.
func fieldsOf(pointer any) map[string]reflect.Value {
	v := reflect.ValueOf(pointer).Elem()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Anonymous && f.Type.Kind() == reflect.Struct {
			maps.Copy(fields, fieldsOf(v.Field(i).Addr().Interface()))
			continue
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" && v.Field(i).CanSet() {
			fields[name] = v.Field(i)
		}
	}
	return fields
}

// assign decodes a value into a field, text being taken for whatever the field is.
func assign(field reflect.Value, value json.RawMessage) error {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || bytes.Equal(value, []byte("null")) {
		return errors.New("a value is missing")
	}
	if _, itself := field.Addr().Interface().(json.Unmarshaler); itself {
		return strict(value, field)
	}
	if _, text := field.Addr().Interface().(encoding.TextUnmarshaler); text {
		return strict(quoted(value), field)
	}
	switch field.Kind() {
	case reflect.Slice:
		return assignList(field, value)
	case reflect.String:
		return strict(quoted(value), field)
	case reflect.Bool:
		return assignBool(field, value)
	case reflect.Pointer:
		to := reflect.New(field.Type().Elem())
		if err := assign(to.Elem(), value); err != nil {
			return err
		}
		field.Set(to)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Float32, reflect.Float64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strict(unquoted(value), field)
	}
	return strict(value, field)
}

// assignBool takes what people write for yes and no.
func assignBool(field reflect.Value, value json.RawMessage) error {
	switch strings.ToLower(string(unquoted(value))) {
	case "true", "yes", "on", "1":
		field.SetBool(true)
	case "false", "no", "off", "0":
		field.SetBool(false)
	default:
		return errors.New("it is yes or no")
	}
	return nil
}

func assignList(field reflect.Value, value json.RawMessage) error {
	elements := []json.RawMessage{value}
	if value[0] == '[' {
		if err := json.Unmarshal(value, &elements); err != nil {
			return err
		}
	} else if field.Type().Elem().Kind() == reflect.Uint8 {
		return strict(value, field)
	}
	list := reflect.MakeSlice(field.Type(), len(elements), len(elements))
	for i, e := range elements {
		if err := assign(list.Index(i), e); err != nil {
			return err
		}
	}
	field.Set(list)
	return nil
}

// strict decodes JSON, refusing fields that a struct hasn't.
func strict(value json.RawMessage, field reflect.Value) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	err := d.Decode(field.Addr().Interface())
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("it is %s", describe(field.Type()))
	}
	if bad := (*json.SyntaxError)(nil); errors.As(err, &bad) {
		return fmt.Errorf("it is %s", describe(field.Type()))
	}
	return err
}

func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a number from 0 to %d", uint64(1)<<(t.Bits()-1)-1+uint64(1)<<(t.Bits()-1))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "yes or no"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a text"
}

// quoted makes a JSON string of a number or truth value, and leaves a string.
func quoted(value json.RawMessage) json.RawMessage {
	if value[0] == '"' || value[0] == '{' || value[0] == '[' {
		return value
	}
	b, _ := json.Marshal(string(value))
	return b
}

// unquoted is what a JSON string says, or the value itself.
func unquoted(value json.RawMessage) json.RawMessage {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return value
	}
	return json.RawMessage(strings.TrimSpace(s))
}

// shown is a value as messages show it.
func shown(value json.RawMessage) string {
	const most = 60
	s := string(value)
	var text string
	if json.Unmarshal(value, &text) == nil {
		s = text
	}
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// hint is the name that may have been meant, as part of a message, or nothing.
func hint(name string, names []string) string {
	if len(name) > maxID {
		return ""
	}
	best, least := "", max(len(name)/3, 1)+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), n); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is how many letters must be changed, put in, taken out or swapped with their neighbours to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
