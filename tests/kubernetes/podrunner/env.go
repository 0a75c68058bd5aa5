package main

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what a container sees: of its image, then envFrom, then env, later ones first.
func (p *pod) environment(container *corev1.Container, from image) (map[string]string, error) {
	env := map[string]string{"PATH": defaultPath, "HOME": "/root", "HOSTNAME": p.hostname()}
	if api, err := p.runner.services.Services(metav1.NamespaceDefault).Get(apiService); err == nil {
		env["KUBERNETES_SERVICE_HOST"] = api.Spec.ClusterIP
		env["KUBERNETES_SERVICE_PORT"] = strconv.Itoa(int(api.Spec.Ports[0].Port))
	}
	for name, value := range from.Env {
		env[name] = value
	}
	for _, source := range container.EnvFrom {
		data, err := p.wholeSource(source)
		if err != nil {
			return nil, err
		}
		for name, value := range data {
			if len(validation.IsEnvVarName(source.Prefix+name)) == 0 {
				env[source.Prefix+name] = value
			}
		}
	}
	for _, entry := range container.Env {
		if entry.ValueFrom == nil {
			env[entry.Name] = expanded(entry.Value, env)
			continue
		}
		value, there, err := p.oneSource(entry.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", entry.Name, err)
		}
		if there {
			env[entry.Name] = value
		}
	}
	return env, nil
}

func (p *pod) wholeSource(source corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case source.ConfigMapRef != nil:
		return texts(p.configMap(source.ConfigMapRef.Name, source.ConfigMapRef.Optional))
	case source.SecretRef != nil:
		return texts(p.secret(source.SecretRef.Name, source.SecretRef.Optional))
	}
	return nil, nil
}

func texts(data map[string][]byte, err error) (map[string]string, error) {
	found := map[string]string{}
	for name, value := range data {
		found[name] = string(value)
	}
	return found, err
}

func (p *pod) oneSource(source *corev1.EnvVarSource) (string, bool, error) {
	var data map[string][]byte
	var key, of string
	var optional *bool
	var err error
	switch {
	case source.FieldRef != nil:
		value, err := p.field(source.FieldRef.FieldPath)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		key, of, optional = ref.Key, "ConfigMap "+ref.Name, ref.Optional
		data, err = p.configMap(ref.Name, optional)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		key, of, optional = ref.Key, "Secret "+ref.Name, ref.Optional
		data, err = p.secret(ref.Name, optional)
	default:
		return "", false, fmt.Errorf("podrunner knows fieldRef, configMapKeyRef and secretKeyRef only")
	}
	if err != nil {
		return "", false, err
	}
	value, there := data[key]
	if !there && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("%s has no key %q", of, key)
	}
	return string(value), there, nil
}

// field is what the downward API says of this Pod at a path.
func (p *pod) field(path string) (string, error) {
	object := p.current()
	if of, key, found := strings.Cut(strings.TrimSuffix(path, "']"), "['"); found {
		switch of {
		case "metadata.labels":
			return object.Labels[key], nil
		case "metadata.annotations":
			return object.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return object.Name, nil
	case "metadata.namespace":
		return object.Namespace, nil
	case "metadata.uid":
		return string(object.UID), nil
	case "metadata.labels":
		return quoted(object.Labels), nil
	case "metadata.annotations":
		return quoted(object.Annotations), nil
	case "spec.nodeName":
		return object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return object.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return p.ip.String(), nil
	case "status.hostIP", "status.hostIPs":
		return p.runner.network.gateway.String(), nil
	}
	return "", fmt.Errorf("podrunner knows no field %q of a Pod", path)
}

// configMap is the data of a ConfigMap beside the Pod; empty when it is missing and may be.
func (p *pod) configMap(name string, optional *bool) (map[string][]byte, error) {
	found, err := p.runner.configMaps.ConfigMaps(p.namespace).Get(name)
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := map[string][]byte{}
	for key, value := range found.Data {
		data[key] = []byte(value)
	}
	for key, value := range found.BinaryData {
		data[key] = value
	}
	return data, nil
}

// secret is `configMap` for a Secret.
func (p *pod) secret(name string, optional *bool) (map[string][]byte, error) {
	found, err := p.runner.secrets.Secrets(p.namespace).Get(name)
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	return found.Data, nil
}

func unlessOptional(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil
	}
	return err
}
