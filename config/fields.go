package config

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// field is a key of a struct.
type field struct {
	index    []int        // for FieldByIndex
	owner    reflect.Type // the struct that has it
	name     string       // in Go
	key      string
	inline   bool
	required bool
	form     string   // one: a list of one needs no brackets
	kind     string   // what the value means beyond its type
	enum     []string // the words it may be
	initial  string   // what an absent key stands for
	example  string
	min, max string
}

var fieldCache sync.Map // reflect.Type to []field

// fieldsOf lists the keys of a struct type: by its yaml tags or, where there is none as in package health, its json tags.
func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldCache.Load(t); ok {
		return known.([]field)
	}
	var list []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("yaml")
		if !ok {
			tag = sf.Tag.Get("json")
		}
		key, options, _ := strings.Cut(tag, ",")
		if key == "" && sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			for _, f := range fieldsOf(sf.Type) {
				f.index = append([]int{i}, f.index...)
				list = append(list, f)
			}
			continue
		}
		if key == "-" || !sf.IsExported() || key == "" && options != "inline" {
			continue
		}
		f := field{
			index: []int{i}, owner: t, name: sf.Name, key: key, inline: options == "inline", required: sf.Tag.Get("required") == "true", form: sf.Tag.Get("form"),
			kind: sf.Tag.Get("kind"), initial: sf.Tag.Get("default"), example: sf.Tag.Get("example"), min: sf.Tag.Get("min"), max: sf.Tag.Get("max"),
		}
		if words := sf.Tag.Get("enum"); words != "" {
			f.enum = strings.Split(words, ",")
		}
		list = append(list, f)
	}
	fieldCache.Store(t, list)
	return list
}

var durationTypes = [2]reflect.Type{reflect.TypeFor[Duration](), reflect.TypeFor[time.Duration]()}

// durationOf returns a value of a type of time.
func durationOf(v reflect.Value) (Duration, bool) {
	if isDuration(v.Type()) {
		return Duration(v.Int()), true
	}
	return 0, false
}

func isDuration(t reflect.Type) bool {
	return t == durationTypes[0] || t == durationTypes[1]
}

// Key is a key of the file, for what documents it.
type Key struct {
	// Name is the key; Owner and Field say which struct's field it is, where its comment stands. Type is the field's.
	Name  string
	Owner reflect.Type
	Field string
	Type  reflect.Type
	// Required, One and the rest are the field's tags; see the package's comment.
	Required, One                    bool
	Kind, Default, Example, Min, Max string
	Enum                             []string
	// Shorthand says that a value of the type may be written as that key's alone; empty if not.
	Shorthand string
	// Inline is the options of a check, whose keys are those of its kind.
	Inline bool
}

// Keys lists the keys of a struct of the file, in their order.
func Keys(t reflect.Type) []Key {
	var list []Key
	for _, f := range fieldsOf(t) {
		k := Key{
			Name: f.key, Owner: f.owner, Field: f.name, Type: t.FieldByIndex(f.index).Type, Required: f.required, One: f.form == "one",
			Kind: f.kind, Default: f.initial, Example: f.example, Min: f.min, Max: f.max, Enum: f.enum, Inline: f.inline,
		}
		of := k.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if s, ok := reflect.New(of).Interface().(interface{ shorthand() string }); ok {
			k.Shorthand = s.shorthand()
		}
		list = append(list, k)
	}
	return list
}

// bounds are the least and the greatest value of a field, which has a number.
func (f *field) bounds(t reflect.Type) (low, high int64) {
	low, high = math.MinInt64, math.MaxInt64
	switch t.Kind() {
	case reflect.Uint, reflect.Uint64:
		low = 0
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		low, high = 0, int64(1)<<t.Bits()-1
	case reflect.Int8, reflect.Int16, reflect.Int32:
		low, high = -(int64(1) << (t.Bits() - 1)), int64(1)<<(t.Bits()-1)-1
	}
	read := func(s string, to *int64) {
		if s == "" {
			return
		}
		if isDuration(t) {
			d, err := ParseDuration(s)
			if err != nil {
				panic("config: " + f.name + ": " + err.Error())
			}
			*to = int64(d)
			return
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic("config: " + f.name + ": " + err.Error())
		}
		*to = n
	}
	read(f.min, &low)
	read(f.max, &high)
	return low, high
}
