//! Runners in containers of a Docker engine: one for each mesh, without a network, without rights, within bounds.

#[cfg(feature = "docker")]
pub(super) use self::engine::Docker;

/// A build without a client for Docker. Settings that ask for it are refused at the start.
#[cfg(not(feature = "docker"))]
pub(super) struct Docker;

#[cfg(not(feature = "docker"))]
#[allow(clippy::unused_async, reason = "as the other one")]
impl Docker {
    pub(super) fn new(_: &super::settings::Settings) -> Self {
        Self
    }

    pub(super) async fn start(&self, _: &claudemesh_protocol::id::MeshId) -> Result<super::Started, super::NoRunner> {
        Err(super::NoRunner("this build of the broker has no client for Docker".into()))
    }

    pub(super) async fn remove(&self, _: &claudemesh_protocol::id::MeshId) {}
}

#[cfg(feature = "docker")]
mod engine {
    use std::collections::HashMap;

    use bollard::container::LogOutput;
    use bollard::models::{
        ContainerCreateBody, ContainerInspectResponse, HostConfig, HostConfigLogConfig, ResourcesUlimits,
    };
    use bollard::query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
        RemoveContainerOptionsBuilder, StartContainerOptions,
    };
    use claudemesh_protocol::id::MeshId;
    use futures_util::StreamExt as _;
    use sha2::{Digest, Sha256};
    use tokio_util::io::StreamReader;

    use super::super::settings::Settings;
    use super::super::{NoRunner, Started, first_user};

    /// With what settings a container was made: one that was made with others is replaced.
    const LABEL: &str = "claudemesh.settings";
    /// Whose it is.
    const MESH: &str = "claudemesh.mesh";
    /// What the runner needs to be a user of its own for each service, to end it, and to remove what it has written.
    const CAPABILITIES: &[&str] = &["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];
    /// Where services lie.
    const FOLDER: &str = "/var/lib/claudemesh";

    /// Starts runners as containers.
    pub(in super::super) struct Docker {
        settings: Settings,
    }

    fn fail(what: &str, error: impl std::fmt::Display) -> NoRunner {
        NoRunner(format!("{what}: {error}"))
    }

    fn name_of(mesh: &MeshId) -> String {
        let digest = Sha256::digest(mesh.as_str());
        format!("claudemesh-runner-{}", hex::encode(&digest[..12]))
    }

    impl Docker {
        pub(in super::super) fn new(settings: &Settings) -> Self {
            Self { settings: settings.clone() }
        }

        async fn engine(&self) -> Result<bollard::Docker, NoRunner> {
            let connected = match &self.settings.docker {
                Some(address) => bollard::Docker::connect_with_host(address),
                None => bollard::Docker::connect_with_defaults(),
            };
            let engine = connected.map_err(|error| fail("the Docker engine cannot be used", error))?;
            // An older engine refuses calls of a version that it does not know.
            engine.negotiate_version().await.map_err(|error| fail("the Docker engine does not answer", error))
        }

        /// The container of a mesh at work, or a new one.
        pub(in super::super) async fn start(&self, mesh: &MeshId) -> Result<Started, NoRunner> {
            let engine = self.engine().await?;
            let (name, body) = (name_of(mesh), self.body(mesh));
            let found = match engine.inspect_container(&name, None::<InspectContainerOptions>).await {
                Ok(found) => Some(found),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(fail("the Docker engine does not answer", error)),
            };
            let fresh = !found.as_ref().is_some_and(|found| is_at_work(found, &body));
            if fresh {
                if found.is_some() {
                    remove(&engine, &name)
                        .await
                        .map_err(|error| fail("an older container cannot be removed", error))?;
                }
                let options = CreateContainerOptionsBuilder::new().name(&name).build();
                let created = engine.create_container(Some(options), body).await;
                created.map_err(|error| fail("the container cannot be made", error))?;
            }
            let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stream(true).build();
            let attached = engine.attach_container(&name, Some(options)).await;
            let attached = attached.map_err(|error| fail("the container cannot be attached to", error))?;
            if fresh {
                let started = engine.start_container(&name, None::<StartContainerOptions>).await;
                started.map_err(|error| fail("the container cannot be started", error))?;
            }
            let output = attached.output.filter_map(|piece| async move {
                match piece {
                    Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => Some(Ok(message)),
                    Ok(LogOutput::StdErr { .. } | LogOutput::StdIn { .. }) => None,
                    Err(error) => Some(Err(std::io::Error::other(error))),
                }
            });
            let read = StreamReader::new(Box::pin(output));
            Ok(Started { read: Box::new(read), write: Box::new(attached.input), fresh, keep: None })
        }

        pub(in super::super) async fn remove(&self, mesh: &MeshId) {
            let removed = async {
                let engine = self.engine().await?;
                remove(&engine, &name_of(mesh)).await.map_err(|error| fail("the container cannot be removed", error))
            };
            if let Err(error) = removed.await {
                tracing::warn!(mesh.id = %mesh, %error, "the container of a mesh stays");
            }
        }

        /// The container of a mesh: nothing of the machine, nothing of other meshes, no way out but its pipes.
        fn body(&self, mesh: &MeshId) -> ContainerCreateBody {
            let settings = &self.settings;
            let memory = i64::from(settings.memory_mb) << 20;
            let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            let folder = format!("rw,exec,nosuid,nodev,mode=0755,size={}m", settings.disk_mb);
            let limits = HostConfig {
                memory: Some(memory),
                // As much as memory: no swap.
                memory_swap: Some(memory),
                nano_cpus: Some((settings.cpus * 1e9) as i64),
                pids_limit: Some(settings.processes.into()),
                readonly_rootfs: Some(true),
                tmpfs: Some(
                    [(FOLDER.to_owned(), folder), ("/tmp".to_owned(), "rw,noexec,nosuid,nodev,size=64m".to_owned())]
                        .into(),
                ),
                cap_drop: list(&["ALL"]),
                cap_add: list(CAPABILITIES),
                security_opt: list(&["no-new-privileges"]),
                network_mode: Some("none".into()),
                ulimits: Some(vec![
                    ResourcesUlimits { name: Some("core".into()), soft: Some(0), hard: Some(0) },
                    ResourcesUlimits { name: Some("nofile".into()), soft: Some(4_096), hard: Some(4_096) },
                ]),
                shm_size: Some(16 << 20),
                // What goes over its pipes are calls of members: nothing for a log of the engine.
                log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
                ..HostConfig::default()
            };
            let mut labels: HashMap<String, String> = [(MESH.to_owned(), mesh.to_string())].into();
            let image = settings.image.clone();
            let described = format!("{image}|{}", serde_json::to_string(&limits).unwrap_or_default());
            labels.insert(LABEL.into(), hex::encode(Sha256::digest(described)));
            ContainerCreateBody {
                image: Some(image),
                labels: Some(labels),
                env: Some(vec![
                    format!("CLAUDEMESH_RUNNER_DIR={FOLDER}"),
                    format!("CLAUDEMESH_RUNNER_FIRST_UID={}", first_user(mesh)),
                ]),
                attach_stdin: Some(true),
                attach_stdout: Some(true),
                attach_stderr: Some(false),
                open_stdin: Some(true),
                stdin_once: Some(false),
                tty: Some(false),
                host_config: Some(limits),
                ..ContainerCreateBody::default()
            }
        }
    }

    fn is_missing(error: &bollard::errors::Error) -> bool {
        matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })
    }

    /// Whether a container runs and was made with these settings.
    fn is_at_work(found: &ContainerInspectResponse, body: &ContainerCreateBody) -> bool {
        let runs = found.state.as_ref().and_then(|state| state.running).unwrap_or(false);
        let label = |labels: Option<&HashMap<String, String>>| labels.and_then(|labels| labels.get(LABEL).cloned());
        let made = label(found.config.as_ref().and_then(|config| config.labels.as_ref()));
        runs && made == label(body.labels.as_ref())
    }

    async fn remove(engine: &bollard::Docker, name: &str) -> Result<(), bollard::errors::Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match engine.remove_container(name, Some(options)).await {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
