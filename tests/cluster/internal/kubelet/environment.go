package kubelet

import (
	"fmt"
	"sort"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// objects are the ConfigMaps and Secrets that pods refer to.
type objects interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
}

// environment gives a container's variables as Kubernetes does: the given base, envFrom in order, then env, each of which may refer
// to those before it with $(NAME).
func environment(pod *v1.Pod, container *v1.Container, ip string, base map[string]string, from objects) (map[string]string, error) {
	result := map[string]string{}
	for name, value := range base {
		result[name] = value
	}
	for _, source := range container.EnvFrom {
		values, err := envFrom(pod.Namespace, source, from)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			result[source.Prefix+name] = value
		}
	}
	own := map[string]string{}
	mapping := expansion.MappingFuncFor(own, base)
	for _, variable := range container.Env {
		value, present := expansion.Expand(variable.Value, mapping), true
		if variable.ValueFrom != nil {
			var err error
			if value, present, err = envValue(pod, container, ip, variable.ValueFrom, from); err != nil {
				return nil, fmt.Errorf("env %s: %w", variable.Name, err)
			}
		}
		if present {
			own[variable.Name], result[variable.Name] = value, value
		}
	}
	return result, nil
}

// expand replaces $(NAME) in each text.
func expand(texts []string, variables map[string]string) []string {
	mapping := expansion.MappingFuncFor(variables)
	expanded := make([]string, len(texts))
	for i, text := range texts {
		expanded[i] = expansion.Expand(text, mapping)
	}
	return expanded
}

func envFrom(namespace string, source v1.EnvFromSource, from objects) (map[string]string, error) {
	values := map[string]string{}
	switch {
	case source.ConfigMapRef != nil:
		found, err := from.ConfigMap(namespace, source.ConfigMapRef.Name)
		if err != nil {
			return nil, unlessOptional(err, source.ConfigMapRef.Optional)
		}
		values = found.Data
	case source.SecretRef != nil:
		found, err := from.Secret(namespace, source.SecretRef.Name)
		if err != nil {
			return nil, unlessOptional(err, source.SecretRef.Optional)
		}
		for key, value := range found.Data {
			values[key] = string(value)
		}
	}
	return values, nil
}

// envValue is absent, without an error, where an optional source is.
func envValue(pod *v1.Pod, container *v1.Container, ip string, source *v1.EnvVarSource, from objects) (value string, present bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = podField(pod, ip, source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		reference := source.ResourceFieldRef
		if name := reference.ContainerName; name != "" && name != container.Name {
			value, err = resource.ExtractResourceValueByContainerName(reference, pod, name)
		} else {
			value, err = resource.ExtractContainerResourceValue(reference, container)
		}
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		reference := source.ConfigMapKeyRef
		found, err := from.ConfigMap(pod.Namespace, reference.Name)
		if err != nil {
			return "", false, unlessOptional(err, reference.Optional)
		}
		if value, ok := found.Data[reference.Key]; ok {
			return value, true, nil
		}
		return "", false, missingKey("ConfigMap", reference.Name, reference.Key, reference.Optional)
	case source.SecretKeyRef != nil:
		reference := source.SecretKeyRef
		found, err := from.Secret(pod.Namespace, reference.Name)
		if err != nil {
			return "", false, unlessOptional(err, reference.Optional)
		}
		if value, ok := found.Data[reference.Key]; ok {
			return string(value), true, nil
		}
		return "", false, missingKey("Secret", reference.Name, reference.Key, reference.Optional)
	}
	return "", false, fmt.Errorf("valueFrom is none of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef")
}

// podField is a field by path as the downward API names it.
func podField(pod *v1.Pod, ip, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return ip, nil
	case "status.hostIP", "status.hostIPs":
		return hostIP, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func missingKey(kind, name, key string, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("%s %s has no key %q", kind, name, key)
}

// list gives NAME=VALUE in alphabetical order.
func list(variables map[string]string) []string {
	result := make([]string, 0, len(variables))
	for name, value := range variables {
		result = append(result, name+"="+value)
	}
	sort.Strings(result)
	return result
}
